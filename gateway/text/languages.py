"""Language codes a client may send, mapped to the words the published models were trained on."""

from __future__ import annotations

# The 31 languages of Fun-ASR-MLT-Nano by the name their training prompts use; Fun-ASR-Nano itself
# knows the first three. Keys are ISO 639-1, or 639-3 where there is no two-letter code.
TRAINED_NAMES: dict[str, str] = {
    "zh": "中文",
    "en": "英文",
    "ja": "日文",
    "cmn": "中文",
    "yue": "粤语",
    "ko": "韩文",
    "vi": "越南语",
    "id": "印尼语",
    "th": "泰语",
    "ms": "马来语",
    "fil": "菲律宾语",
    "tl": "菲律宾语",
    "ar": "阿拉伯语",
    "hi": "印地语",
    "bg": "保加利亚语",
    "hr": "克罗地亚语",
    "cs": "捷克语",
    "da": "丹麦语",
    "nl": "荷兰语",
    "et": "爱沙尼亚语",
    "fi": "芬兰语",
    "el": "希腊语",
    "hu": "匈牙利语",
    "ga": "爱尔兰语",
    "lv": "拉脱维亚语",
    "lt": "立陶宛语",
    "mt": "马耳他语",
    "pl": "波兰语",
    "pt": "葡萄牙语",
    "ro": "罗马尼亚语",
    "sk": "斯洛伐克语",
    "sl": "斯洛文尼亚语",
    "sv": "瑞典语",
}


def prompt_language(language: str | None) -> str | None:
    """The word for `language` in the prompt, or None when the model is to find out itself.

    None, the empty string and "auto" mean automatic. ISO codes in any case, with or without a region
    ("zh", "EN", "zh-CN", "pt_BR"), become the trained name. Every other string, names such as "中文"
    and "English" included, is passed on verbatim, as the published implementation does.
    """
    if language is None:
        return None
    name = language.strip()
    if not name or name.lower() == "auto":
        return None
    primary, _, region = name.lower().replace("_", "-").partition("-")
    # A code may carry a script or region subtag; anything longer is a name, not a code.
    if len(region) <= 4 and primary in TRAINED_NAMES:
        return TRAINED_NAMES[primary]
    return name
