"""The double opt-in mail: a built-in text in the languages of the public pages, or a template of one's own.

Promise: what comes out renders, names its link `confirm_url` in every part, and is not tracked: nobody has agreed to
anything yet. The built-in text takes no value of the contact: whoever signs somebody else up must not be able to
write to them through our mail. Called by the API before `contacts.confirmation`; it stores nothing.
"""

from __future__ import annotations

import html as html_text
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from mautolib.errors import InvalidInput, NotFound
from mautolib.ledger.model import NewContent
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.compile import compile_template
from mautolib.templates.markup import find_marks
from mautolib.templates.model import Template

__all__ = ["WORDS", "confirmation_mail"]

#: Names other mail may use, but this one does not give.
_NOT_GIVEN: Final = frozenset({"campaign", "event"})
_LINK: Final = re.compile(r"\bconfirm_url\b")
_PATH: Final = ("body", "template_id")

#: Subject, what is asked, the button, and what to do if it was somebody else. A language is complete or not here.
WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "subject": "Please confirm your subscription",
        "text": "Somebody entered this address to receive our e-mails. If it was you, please confirm it:",
        "button": "Confirm subscription",
        "otherwise": "If it was not you, do nothing: without your confirmation you will not receive any newsletter.",
    },
    "de": {
        "subject": "Bitte bestätigen Sie Ihre Anmeldung",
        "text": "Diese Adresse wurde für unsere E-Mails angemeldet. Wenn Sie das waren, bestätigen Sie bitte:",
        "button": "Anmeldung bestätigen",
        "otherwise": "Wenn Sie das nicht waren, tun Sie nichts: Ohne Ihre Bestätigung erhalten Sie keinen Newsletter.",
    },
    "fr": {
        "subject": "Veuillez confirmer votre inscription",
        "text": "Cette adresse a été inscrite pour recevoir nos e-mails. Si c’était vous, veuillez confirmer :",
        "button": "Confirmer l’inscription",
        "otherwise": "Si ce n’était pas vous, ne faites rien : sans confirmation, vous ne recevrez aucune newsletter.",
    },
    "es": {
        "subject": "Confirme su suscripción",
        "text": "Alguien ha indicado esta dirección para recibir nuestros correos. Si fue usted, confírmelo:",
        "button": "Confirmar la suscripción",
        "otherwise": "Si no fue usted, no haga nada: sin su confirmación no recibirá ningún boletín.",
    },
    "it": {
        "subject": "Confermi la sua iscrizione",
        "text": "Qualcuno ha indicato questo indirizzo per ricevere le nostre e-mail. Se è stato lei, confermi:",
        "button": "Conferma l’iscrizione",
        "otherwise": "Se non è stato lei, non faccia nulla: senza la sua conferma non riceverà alcuna newsletter.",
    },
    "nl": {
        "subject": "Bevestig uw aanmelding",
        "text": "Dit adres is aangemeld voor onze e-mails. Was u dat, bevestig het dan:",
        "button": "Aanmelding bevestigen",
        "otherwise": "Was u dat niet, doe dan niets: zonder uw bevestiging ontvangt u geen nieuwsbrief.",
    },
    "pt": {
        "subject": "Confirme a sua inscrição",
        "text": "Este endereço foi inscrito para receber os nossos e-mails. Se foi o seu pedido, confirme-o:",
        "button": "Confirmar inscrição",
        "otherwise": "Se não foi o seu pedido, não faça nada: sem confirmação, não receberá nenhuma newsletter.",
    },
    "ar": {
        "subject": "يُرجى تأكيد اشتراكك",
        "text": "سُجِّل هذا العنوان لتلقي رسائلنا الإلكترونية. إذا كنت أنت من طلب ذلك، فيُرجى التأكيد:",
        "button": "تأكيد الاشتراك",
        "otherwise": "إذا لم تكن أنت من طلب ذلك، فلا تفعل شيئًا: لن تصلك أي نشرة بريدية من دون تأكيدك.",
    },
    "ja": {
        "subject": "配信登録の確認をお願いします",
        "text": "このアドレスでメール配信の登録がありました。ご本人の場合は、次のボタンで確認してください。",
        "button": "登録を確認する",
        "otherwise": "お心当たりがない場合は、何もしないでください。確認がない限り、ニュースレターは届きません。",
    },
    "zh": {
        "subject": "请确认您的订阅",
        "text": "有人用此地址订阅了我们的邮件。如果是您本人，请确认：",
        "button": "确认订阅",
        "otherwise": "如果不是您本人，请忽略此邮件：未经您确认，您不会收到任何资讯邮件。",
    },
}

_HTML: Final = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{subject}</title>
</head>
<body style="margin:0;padding:24px 16px;font-family:Helvetica,Arial,sans-serif;font-size:16px;line-height:24px">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0" border="0"><tr><td align="center">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0" border="0" style="max-width:480px"><tr><td>
<h1 style="margin:0 0 16px;font-size:22px;line-height:28px">{subject}</h1>
<p style="margin:0 0 20px">{text}</p>
<p style="margin:0 0 20px"><a href="{{{{ confirm_url }}}}" style="display:inline-block;padding:12px 24px;\
border-radius:8px;background-color:#1f5fbf;color:#ffffff;font-weight:bold;text-decoration:none">{button}</a></p>
<p style="margin:0 0 20px;font-size:14px;line-height:20px">{otherwise}</p>
{sender}</td></tr></table>
</td></tr></table>
</body>
</html>
"""
_TEXT: Final = """{subject}

{text}

{{{{ confirm_url }}}}

{otherwise}
{sender}"""


def confirmation_mail(
    tx: Connection, settings: Settings, *, language: str, template_id: int | None = None
) -> tuple[NewContent, str]:
    """What to send to a contact of `language`, and a note of which text it is.

    Args:
        template_id: a template of one's own; None: the built-in text, English where there is none in `language`.

    Raises:
        InvalidInput: no such template, or it is faulty or lacks its link.
    """
    if template_id is None:
        base = language.replace("_", "-").partition("-")[0].lower()
        known = base if base in WORDS else "en"
        return _built_in(settings, known), f"built-in text ({known})"
    try:
        template = catalogue.get(tx, template_id)
    except NotFound as error:
        raise InvalidInput(str(error), path=_PATH) from None
    problem = _problem(template)
    if problem:
        raise InvalidInput(f"The template cannot ask for a confirmation: {problem}", path=_PATH)
    content = replace(
        _untracked(settings), subject=template.subject, html_body=template.html_body, text_body=template.text_body,
        strict=template.strict, template_id=template.template_id, template_version=template.version,
    )  # fmt: skip
    return content, f"template {template.template_id} version {template.version}"


def _built_in(settings: Settings, language: str) -> NewContent:
    words = WORDS[language]
    # Who asks must be plain, also in a mail that is no advertising; a setting is text, never a template.
    lines = [_literal(line) for line in (settings.default_from_name, " ".join(settings.postal_address.split())) if line]
    shown = {name: html_text.escape(text, quote=False) for name, text in words.items()}
    address = "<br>".join(html_text.escape(line, quote=False) for line in lines)
    sender = f'<p style="margin:0;font-size:12px;line-height:18px">{address}</p>\n' if lines else ""
    return replace(
        _untracked(settings),
        subject=words["subject"],
        html_body=_HTML.format(language=language, sender=sender, **shown),
        text_body=_TEXT.format(sender="".join(f"\n{line}" for line in ["-- ", *lines] if lines), **words),
        locale=language,
    )


def _untracked(settings: Settings) -> NewContent:
    return NewContent(
        subject="", html_body="", from_name=settings.default_from_name, from_email=settings.default_from_email,
        track_opens=False, track_clicks=False,
    )  # fmt: skip


def _problem(template: Template) -> str | None:
    compiled = compile_template(
        template.subject, template.html_body, template.text_body, strict=template.strict, variables=template.variables
    )
    if compiled.problems:
        first = compiled.problems[0]
        return f"{first.message} ({first.part}, line {first.line})"
    unknown = {*compiled.undeclared, *(name for name in compiled.variables if name.split(".")[0] in _NOT_GIVEN)}
    if unknown:
        return f"Undefined variable: {min(unknown)}; a confirmation does not give it"
    if not template.html_body.strip():
        return "it has no HTML body"
    for name, source in (("html_body", template.html_body), ("text_body", template.text_body)):
        if source.strip() and not _has_link(source):
            return f"the {name} does not contain the link {{{{ confirm_url }}}}"
    return None


def _has_link(source: str) -> bool:
    return any(
        mark.opening == "{{" and _LINK.search(source[mark.start : mark.end]) for mark in find_marks(source)
    )


def _literal(text: str) -> str:
    """Text that Jinja shows as it is."""
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", text)
