"""The words of the public pages in each language we speak. A language is complete or it is not here (tested)."""

from __future__ import annotations

from collections.abc import Mapping

from mautolib.pages.preference_words import PREFERENCE_WORDS

_WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "confirm_title": "Unsubscribe",
        "confirm_text": "Do you want to stop receiving our e-mails?",
        "confirm_button": "Unsubscribe",
        "done_title": "You have been unsubscribed",
        "done_text": "You will not receive any more marketing e-mails from us. You can close this page.",
        "invalid_title": "This link is not complete",
        "invalid_text": "Nothing has been changed. Please open the link in the e-mail again, or copy it as a whole.",
        "leaving_title": "Please check where this link leads",
        "leaving_text": "We could not verify this link. It leads to:",
        "leaving_button": "Continue",
    },
    "de": {
        "confirm_title": "Abmelden",
        "confirm_text": "Möchten Sie unsere E-Mails nicht mehr erhalten?",
        "confirm_button": "Abmelden",
        "done_title": "Sie sind abgemeldet",
        "done_text": "Sie erhalten keine Werbe-E-Mails mehr von uns. Sie können diese Seite schließen.",
        "invalid_title": "Dieser Link ist unvollständig",
        "invalid_text": "Es wurde nichts geändert. Bitte öffnen Sie den Link in der E-Mail noch einmal "
                        "oder kopieren Sie ihn vollständig.",
        "leaving_title": "Bitte prüfen Sie, wohin dieser Link führt",
        "leaving_text": "Wir konnten diesen Link nicht bestätigen. Er führt zu:",
        "leaving_button": "Weiter",
    },
    "fr": {
        "confirm_title": "Se désabonner",
        "confirm_text": "Voulez-vous ne plus recevoir nos e-mails ?",
        "confirm_button": "Me désabonner",
        "done_title": "Vous êtes désabonné",
        "done_text": "Vous ne recevrez plus d’e-mails publicitaires de notre part. Vous pouvez fermer cette page.",
        "invalid_title": "Ce lien est incomplet",
        "invalid_text": "Rien n’a été modifié. Veuillez rouvrir le lien dans l’e-mail ou le copier en entier.",
        "leaving_title": "Vérifiez où mène ce lien",
        "leaving_text": "Nous n’avons pas pu vérifier ce lien. Il mène à :",
        "leaving_button": "Continuer",
    },
    "es": {
        "confirm_title": "Cancelar la suscripción",
        "confirm_text": "¿Desea dejar de recibir nuestros correos electrónicos?",
        "confirm_button": "Cancelar la suscripción",
        "done_title": "Su suscripción ha sido cancelada",
        "done_text": "No recibirá más correos publicitarios de nuestra parte. Puede cerrar esta página.",
        "invalid_title": "Este enlace está incompleto",
        "invalid_text": "No se ha cambiado nada. Abra de nuevo el enlace del correo o cópielo entero.",
        "leaving_title": "Compruebe adónde lleva este enlace",
        "leaving_text": "No hemos podido verificar este enlace. Lleva a:",
        "leaving_button": "Continuar",
    },
    "it": {
        "confirm_title": "Annulla l’iscrizione",
        "confirm_text": "Non vuole più ricevere le nostre e-mail?",
        "confirm_button": "Annulla l’iscrizione",
        "done_title": "La sua iscrizione è stata annullata",
        "done_text": "Non riceverà più e-mail promozionali da parte nostra. Può chiudere questa pagina.",
        "invalid_title": "Questo link è incompleto",
        "invalid_text": "Non è stato modificato nulla. Riapra il link nell’e-mail o lo copi per intero.",
        "leaving_title": "Controlli dove porta questo link",
        "leaving_text": "Non abbiamo potuto verificare questo link. Porta a:",
        "leaving_button": "Continua",
    },
    "nl": {
        "confirm_title": "Afmelden",
        "confirm_text": "Wilt u onze e-mails niet meer ontvangen?",
        "confirm_button": "Afmelden",
        "done_title": "U bent afgemeld",
        "done_text": "U ontvangt geen reclamemails meer van ons. U kunt deze pagina sluiten.",
        "invalid_title": "Deze link is niet volledig",
        "invalid_text": "Er is niets gewijzigd. Open de link in de e-mail opnieuw of kopieer hem volledig.",
        "leaving_title": "Controleer waar deze link naartoe gaat",
        "leaving_text": "We konden deze link niet verifiëren. Hij gaat naar:",
        "leaving_button": "Doorgaan",
    },
    "ja": {
        "confirm_title": "配信停止",
        "confirm_text": "メールの配信を停止しますか?",
        "confirm_button": "配信を停止する",
        "done_title": "配信を停止しました",
        "done_text": "今後、広告メールはお送りしません。このページを閉じてください。",
        "invalid_title": "リンクが正しくありません",
        "invalid_text": "何も変更されていません。メールのリンクをもう一度開くか、全体をコピーしてください。",
        "leaving_title": "リンク先をご確認ください",
        "leaving_text": "このリンクを確認できませんでした。リンク先:",
        "leaving_button": "続ける",
    },
    "zh": {
        "confirm_title": "退订",
        "confirm_text": "您确定不再接收我们的邮件吗?",
        "confirm_button": "退订",
        "done_title": "您已退订",
        "done_text": "您将不会再收到我们的营销邮件。您可以关闭此页面。",
        "invalid_title": "链接不完整",
        "invalid_text": "未做任何更改。请重新打开邮件中的链接,或完整复制该链接。",
        "leaving_title": "请确认此链接的去向",
        "leaving_text": "我们无法验证此链接。它指向:",
        "leaving_button": "继续",
    },
}

WORDS: Mapping[str, Mapping[str, str]] = {
    language: {**words, **PREFERENCE_WORDS[language]} for language, words in _WORDS.items()
}
