"""Phrases that Whisper is known to write where nobody spoke: the ends of films that it learned from."""

from __future__ import annotations

from collections.abc import Sequence

WHOLE: dict[str, tuple[str, ...]] = {
    "en": (
        "you", "thank you", "thank you very much", "thank you so much", "thanks", "bye", "bye bye", "okay", "the end",
        "thank you for watching", "thanks for watching", "thank you for listening", "thanks for listening",
        "thank you so much for watching", "thank you very much for watching", "please subscribe",
        "please subscribe to my channel", "please like and subscribe", "dont forget to like and subscribe",
        "see you next time", "see you in the next video", "ill see you in the next video", "hello hello hello",
    ),
    "de": ("vielen dank", "danke", "danke schön", "danke fürs zuschauen", "vielen dank fürs zuschauen", "tschüss",
           "bis zum nächsten mal", "das war's", "amen"),
    "fr": ("merci", "merci beaucoup", "merci d'avoir regardé", "merci d'avoir regardé cette vidéo", "au revoir",
           "abonnez-vous"),
    "es": ("gracias", "muchas gracias", "gracias por ver", "gracias por ver el video", "suscríbete", "adiós"),
    "it": ("grazie", "grazie mille", "grazie a tutti", "grazie per la visione", "grazie per aver guardato"),
    "pt": ("obrigado", "obrigada", "tchau", "obrigado por assistir", "inscreva-se no canal"),
    "nl": ("dank u wel", "bedankt", "bedankt voor het kijken", "tot de volgende keer"),
    "ru": ("спасибо", "спасибо за внимание", "спасибо за просмотр", "продолжение следует", "до свидания"),
    "ja": ("ご視聴ありがとうございました", "ありがとうございました", "おやすみなさい", "チャンネル登録お願いします"),
    "zh": ("谢谢", "謝謝", "谢谢观看", "謝謝觀看", "谢谢大家", "請不吝點贊訂閱轉發打賞支持明鏡與點點欄目"),
    "ko": ("감사합니다", "시청해주셔서 감사합니다", "구독과 좋아요 부탁드립니다"),
}  # fmt: skip
"""By language (ISO 639-1). Sources: openai/whisper discussion 679 and the threads that point to it
(McCloudS/subgen 21, amicalhq/amical 71, woheller69/whisperIME 57, EdF2021/ithaka 96); translations are a choice."""
BEGINNINGS: dict[str, tuple[str, ...]] = {
    "en": ("subtitles by", "subtitled by", "captions by", "captioned by", "transcribed by", "transcription by",
           "translated by", "copyright"),
    "de": ("untertitel von", "untertitel im auftrag", "untertitel der", "untertitelung", "copyright wdr", "swr 20"),
    "fr": ("sous-titrage", "sous-titres réalisés", "sous-titres par", "sous-titres faits par"),
    "es": ("subtítulos por", "subtítulos realizados por"),
    "it": ("sottotitoli creati", "sottotitoli e revisione", "sottotitoli a cura"),
    "pt": ("legendas pela", "legendas por", "legenda por"),
    "nl": ("ondertitels ingediend", "ondertiteld door", "ondertiteling"),
    "ru": ("субтитры сделал", "субтитры создавал", "субтитры подогнал", "редактор субтитров"),
    "zh": ("字幕由", "字幕by"),
    "ko": ("자막 제공",),
}  # fmt: skip
"""How credits begin; a name follows."""


def letters(text: str) -> str:
    """Return letters and digits alone, folded: how phrases are compared in every script."""
    return "".join(character for character in text.casefold() if character.isalnum())


def is_phantom(text: str, language: str, prompt: Sequence[str] = ()) -> bool:
    """Say whether the whole text is a phrase of the language, or of English, however often; or is from the prompt."""
    said = letters(text)
    if not said:
        return False
    tables = {language, "en"}
    if any(said.startswith(letters(start)) for table in tables for start in BEGINNINGS.get(table, ())):
        return True
    whole = {letters(phrase) for table in tables for phrase in WHOLE.get(table, ())}
    return any(_repeated(said, phrase) for phrase in whole) or any(said in letters(given) for given in prompt)


def _repeated(said: str, phrase: str) -> bool:
    times, rest = divmod(len(said), len(phrase))
    return rest == 0 and said == phrase * times
