"""The words of the public pages: one file a language in `languages/`, complete or not there (tested).

Loaded once. Which language a reader is spoken to in is `public`'s question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["LANGUAGE_NAMES", "WORDS"]

_FOLDER = Path(__file__).parent / "languages"

WORDS: Mapping[str, Mapping[str, str]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(_FOLDER.glob("*.json"))
}

#: Languages a person may choose, each as its speakers call it. What mail is written in is the sender's choice.
LANGUAGE_NAMES: Mapping[str, str] = {
    "cs": "Čeština", "da": "Dansk", "de": "Deutsch", "en": "English", "es": "Español", "et": "Eesti",
    "fi": "Suomi", "fr": "Français", "hr": "Hrvatski", "hu": "Magyar", "id": "Bahasa Indonesia", "it": "Italiano",
    "lt": "Lietuvių", "lv": "Latviešu", "nb": "Norsk bokmål", "nl": "Nederlands", "pl": "Polski",
    "pt": "Português", "ro": "Română", "sk": "Slovenčina", "sl": "Slovenščina", "sv": "Svenska",
    "tr": "Türkçe", "vi": "Tiếng Việt", "el": "Ελληνικά", "bg": "Български", "ru": "Русский", "sr": "Српски",
    "uk": "Українська", "he": "עברית", "ar": "العربية", "fa": "فارسی", "hi": "हिन्दी", "th": "ไทย",
    "ja": "日本語", "ko": "한국어", "zh": "中文",
}  # fmt: skip
