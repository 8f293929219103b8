"""The words in which mail servers refuse: tables for `bounces`, read top down.

Written from what servers of all kinds say, in English mostly; each line of a table is an alternative of one pattern,
matched against lower case text without addresses, links and host names (`addr`, `name`). Pure data.
"""

from __future__ import annotations

import re
from typing import Final

from mautolib.classification.reasons import Reason

__all__ = ["ADDRESS", "AFTER_DATA", "AFTER_MAIL", "DIRECTORY", "LATER", "LINK", "LISTS", "LOCAL", "NAME", "NO_ACCOUNT",
           "PATTERNS", "PREAMBLE"]  # fmt: skip

#: In this order: whoever is blocked is told so in many words, some of which also occur in the others.
_WORDS: Final[tuple[tuple[Reason, str], ...]] = (
    (Reason.VIRUS,
     r"virus|malware|infected|malicious|trojan|dangerous (?:content|attachment|file)|potentially harmful"),
    (Reason.MAILBOX_FULL,
     r"\bover ?quota|\bquota\b|(?:mail ?box|mail ?folder|inbox|account|storage|maildir|mail "
     r"?drop)\b[^.;]{0,60}?\b(?:full|exceed\w*|over (?:its|the)|too large|no space|size limit)|full (?:mailbox"
     r"|inbox)|exceed\w* (?:\w+ ){0,4}(?:storage|mailbox|disk|inbox)|out of (?:storage|disk)|(?:insufficient|not "
     r"enough|no|lack of) (?:\w+ )?(?:storage|disk|space|room)|disk (?:full|space)|storage (?:limit|space)"
     r"|mailbox_?full|boite (?:\S+ )?pleine|postfach (?:ist )?voll|user (?:is |has )?(?:over|exceed)|recipient "
     r"(?:is |has )?(?:over|exceed)"),
    (Reason.AUTHENTICATION,
     r"\bspf\b|\bdkim\b(?!-sig)|\bdmarc\b|domainkeys|sender policy framework|\bunauthenticated (?:e-?mail"
     r"|message)|authentication (?:check|information|fail)|not authenticated"),
    (Reason.SENDER_REFUSED,
     r"sender (?:address |domain |e-?mail )?(?:\S+ )?(?:was |is |has been )?(?:reject|denied|refus|invalid"
     r"|unknown|not )|(?:reject|refus|unknown|invalid|bad|blocked?)\w* (?:sender|return path|from address)"
     r"|domain of sender|sender domain|mail from (?:\S+ ){0,3}(?:reject|den|refus|not)|(?:envelope|header) "
     r"(?:from|sender)|responsible address|(?:your|sender'?s?) (?:e-?mail )?(?:address|domain) (?:\S+ "
     r"){0,3}(?:reject|den|refus|not|could|does)|not (?:a )?(?:member|subscrib)|permission to (?:post|send)|not "
     r"(?:allowed|permitted|authori[sz]ed) to (?:post|send|e-?mail|mail|deliver)|restricted|may not (?:exist, or "
     r"you|have permission)|moderat|owner of the group|unauthenticated sender|authentication required"
     r"|authrequired|only accepts? (?:mail|messages)"),
    (Reason.BLOCKED,
     r"reverse (?:dns|map|look ?up|hostname)|\bptr\b|\brdns\b|fcrdns|mismatch\w* client|black ?-?list|block "
     r"?-?list|blocked|\bblock(?:ing)? list|deny ?list|\brbls?\b|dnsbl|spamhaus|spamcop|\bsorbs\b|barracuda"
     r"|cloudmark|proofpoint|reputation|\bbanned|\bbl\?|bad host|dynamic (?:ip|host|address)|dial-?up|client "
     r"host rejected|(?:your|client|source|sending|this|the) (?:ip|host|server|network|mta|mail "
     r"server)\b[^.;]{0,60}?\b(?:not (?:allow|accept|permit|author)|den|refus|reject|prohib|black|listed|unable)"
     r"|not accepted from|no access from|(?:helo|ehlo)\b[^.;]{0,40}(?:reject|invalid|not|bad|den)|(?:connection"
     r"|mail|access|message|service) (?:refused|rejected|denied|dropped) (?:from|by|due)|access denied|service "
     r"refused?|(?<!not )listed (?:in|at|on)|unsolicited connection|too much spam|bulk sender|protocol error: "
     r"connection reset|\bblocklisted"),
    (Reason.SPAM,
     r"\bspam|\buce\b|\bube\b|unsolicited|junk ?-?mail|phish|bulk (?:e-?)?mail|bayes|(?:message|content|e-?mail"
     r"|mail) (?:has been |was |is )?(?:content )?(?:filtered|scored)|content rejected|high.probability|header "
     r"error"),
    (Reason.BUSY,
     r"too many (?!hops|received)|rate.?limit|throttl|frequency|exceed\w* (?:\w+ ){0,3}(?:rate|hourly|daily"
     r"|number|connections)|maximum (?:\w+ )?(?:connections|number)|unusual rate|connection limit|simultaneous"
     r"|concurrent"),
    (Reason.TOO_LARGE,
     r"too (?:large|big|long) ?(?:for|message|mail|\()|(?:message|mail|e-?mail|attachment)\b[^.;]{0,50}?(?:too "
     r"(?:large|big)|size limit|length exceed|size exceed|exceeds)|max\w* (?:message |mail )?size|size limit "
     r"exceed|headers too large"),
    (Reason.RELAYING,
     r"\brelay|not a local (?:host|domain)|rcpthosts"),
    (Reason.NOT_ACCEPTING,
     r"null ?mx|(?:does|do)(?: not|n.t) (?:accept|receive) (?:any )?(?:e-?)?mail|find a mail exchanger|no (?:mx"
     r"|mail exchanger|mail server)|malformed or unexpected name server reply|(?:mx|mail) records? (?:\S+ "
     r")?point|record indicated no smtp"),
    (Reason.SYSTEM,
     r"procmail|could ?n.t create|mailer error|internal (?:\w+ )?error|other mail system problem"),
    (Reason.POLICY,
     r"\bpolic(?:y|ies)\b|security (?:polic|reason|violat|restrict|settings)|prohibit|compliance|confidential"
     r"|not rfc|rfc ?\d{3,4} complian|duplicate header|malformed (?:head|add|mess|mail)|(?:from|to|date"
     r"|subject): ?header|addresses in from|content (?:denied|refused|violat|presents)|attachment|rejected by "
     r"(?:the )?(?:administrator|filter|rule)|recipient preferences|suspicious"),
    (Reason.SUSPENDED,
     r"(?:account|mail ?box|user|recipient|address|maildrop|domain)\b[^.;]{0,60}?\b(?:disabled|suspend|inactive"
     r"|locked|deactivat|frozen|on hold|not active|discontinued|blocked)|(?:disabled|suspended|deactivated"
     r"|locked|frozen) (?:user|account|mail ?box|recipient|address)|temporarily (?:disabled|suspended|locked)"),
    (Reason.MOVED,
     r"has moved|no longer (?:on (?:this )?server|here|at this|with|works?|employ|valid|in use|available|active"
     r"|exists)|address (?:has )?changed|not our customer|left the company|user not local; please try"),
    (Reason.HOST_UNKNOWN,
     r"\b(?:host|domain|mail server|server)\b(?: name)?[^.;]{0,60}?\b(?:unknown|not (?:found|exist|reachable"
     r"|resolv|valid|be found)|n.t (?:found|exist|be found|resolve)|nonexist|invalid|lookup failed)|(?:unknown"
     r"|no such|illegal|bad|invalid|unrouteable|unresolvable|nonexistent|can(?:no|.)t find(?: any)?|could(?: not"
     r"|n.t) find(?: any)?) (?:mail )?(?:host|domain|server)|nxdomain|unrouteable mail"),
    (Reason.USER_UNKNOWN,
     r"\b(?:user|recipient|mail ?box|address|account|addressee|alias|name|person|subscriber|adresse|destinataire"
     r"|utilisateur|benutzer|empf[aä]nger|usuario|utente|inbox)\b(?: addr)?[^;.]{0,80}?\b(?:unknown|unbekannt"
     r"|inconnue?|desconocid\w|not (?:be |currently )?(?:found|exist|known|listed|valid|recogni[sz]ed|registered"
     r"|available|here|in (?:the|our)|a (?:valid|known|registered)|permitted|accepted)|does(?:n.t| not)|is(?:n.t"
     r"| not)|was(?:n.t| not)|could(?:n.t| not) be found|invalide?|invalid|nonexist\w*|non-exist\w*"
     r"|undeliverable|ambiguous|unroutable)|\b(?:address|recipient|user|mailbox|account)(?: addr| address| "
     r"name)? (?:is |was )?(?:rejected|unavailable|inactive|refused|error|illegal)\b|\b(?:unknown|invalid|no "
     r"such|nonexistent|non-existent|bad|illegal|undeliverable|incorrect|no|unrouteable|inactive|not a (?:valid"
     r"|known|registered))(?: or \w+)?(?: \w+)? (?:user|recipient|mail ?box|address|account|addressee|alias"
     r"|local|person|addr|e-?mail address)\w*|user ?unknown|unknown ?user|nosuchuser|recip(?:ient)?notfound|no "
     r"mailbox here|not exist|no valid recipients|unknown (?:to|at) (?:this|our)|見つかりません|存在しません"
     r"|undisclosed|does "
     r"not like recipient|no such person"),
    (Reason.EXPIRED,
     r"timed? ?-?out|expired|(?:queue|been) (?:\w+ )?too long|could not (?:be )?deliver\w* for|delayed|giving up"
     r"|retry time|not (?:yet )?been delivered (?:after|for)|aborted after|attempts|will (?:keep|continue|be "
     r"retried)|still trying|did not accept our requests to connect|deferred|unable to (?:contact|connect)"),
    (Reason.NETWORK,
     r"connection (?:\S+ ){0,2}(?:refused|failed|lost|reset|closed|dropped)|lost connection|no route|unreachable"
     r"|network|\bloop|too many hops|hop count|dns (?:error|query|lookup)|name service|temporar\w+ lookup|could "
     r"?n.t connect|routing"),
    (Reason.SYSTEM,
     r"system|mailer|local (?:error|config)|internal|temporar|resource|service (?:\w+ )?unavailable|procmail"
     r"|pipe|command|try (?:again )?later|i/o|ldap"),
)  # fmt: skip
PATTERNS: Final = tuple((reason, re.compile(words)) for reason, words in _WORDS)
#: Nothing is concluded from addresses, links and host names: they are full of telling words.
ADDRESS: Final = re.compile(r"<?[^\s<>@]{1,100}@[^\s<>@]{1,255}>?")
LINK: Final = re.compile(r"https?://\S+")
NAME: Final = re.compile(r"\b(?!resolver\.)(?=[\d.-]{0,60}[a-z])[\w-]{1,63}(?:\.[\w-]{1,63})+\b")
#: Links to those who keep lists of senders.
LISTS: Final = re.compile(
    r"spamhaus\.|spamcop\.|barracudacentral\.|sorbs\.|dnsbl|/rbl|proofpoint\.com/dnsbl|bl\.mailspike"
)
#: What reports begin with, whatever went wrong; a refusal follows.
PREAMBLE: Final = re.compile(
    r"this (?:message|report|e-?mail) was (?:created|generated) automatically by .{0,80}?(?=a message|your message"
    r"|[.!] |$)|(?:a|the|your)? ?(?:message|mail)s? (?:that you (?:have )?sent |returned below |you sent "
    r")?(?:could|can) ?not be delivered to (?:one or more|all|the following)(?: of)?(?: its)?(?: \w+)?|(?:this is "
    r"a |has been a )?permanent (?:error|failure)|the following address(?:\(?es\)?)?(?: had (?:\w+ )?(?:\w+ "
    r")?errors?| failed)?|mail undeliverable to addr|(?:unable|able|attempting|trying) to deliver (?:your |the "
    r"|this |a )?(?:message|mail)(?: for| to)? (?:the )?(?:following )?(?:list of )?(?:address|recipient)\S*"
    r"|delivery to the following recipients?(?: \w+)? failed(?: permanently)?|(?:did not|didn't) reach the "
    r"following recipient\S*|recipient address rejected: (?=\S)|rejected by a remote mail server"
)
#: Said by Microsoft's servers of addresses that their directory does not know.
DIRECTORY: Final = re.compile(r"5\.4\.1 .{0,100}recipient address rejected: access denied")
NO_ACCOUNT: Final = re.compile(r"delivery error: dd .{0,10}user doesn.t have an? ")
#: The mailbox is there, but the server could not write to it.
LOCAL: Final = re.compile(r"procmail: could|maildrop: |could ?n.t create .{0,80}(?:spool|mail)")
AFTER_MAIL: Final = re.compile(r"(?:after|in reply to) mail from|>>> mail from\S* ?\S*\s*<<< ?5")
LATER: Final = re.compile(r"not found,? try again|try again later|temporar")
#: The address was taken and the mail refused for what it says, or by whom it is read. Carriers that name nobody
#: in their refusal have looked at the mail, too.
AFTER_DATA: Final = re.compile(
    r"in reply to end of data|>>> (?:data|\.)\s*<<< ?5|after (?:end of )?data|\(state 1[78]\)|transmission of data"
    r"|(?:^|\s)55\d ?: user unknown"
)
