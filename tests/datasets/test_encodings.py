"""Text that is not UTF-8: recognised, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexflow.datasets.encodings import decode_text
from apexflow.errors import ApexflowError

HEAD = "Subject,Filename,Notes\n006,006_1_2,"


@pytest.mark.parametrize(
    ("encoding", "name", "text"),
    [
        ("gbk", "GBK/GB18030", "厌恶,高兴"),
        ("gbk", "GBK/GB18030", "被试眨眼 note"),
        ("gb18030", "GBK/GB18030", "受试者,片段,起始帧,情绪"),
        ("cp1251", "Windows-1251", "удивление"),
        ("cp1251", "Windows-1251", "Отвращение, с закрытыми глазами"),  # noqa: RUF001
        ("cp932", "Shift-JIS", "驚き"),
        ("cp932", "Shift-JIS", "カメラを見る,被験者"),
        ("cp949", "EUC-KR", "놀람,행복,눈을 깜박임,카메라를 본다"),
        ("cp1252", "Windows-1252", "clin d'œil étonné"),
        ("cp1252", "Windows-1252", "it’s “½” – 25°"),  # noqa: RUF001
        ("utf-8", "UTF-8", "厌恶 é и"),
        ("utf-8-sig", "UTF-8", "厌恶 é и"),
        ("utf-16", "UTF-16", "厌恶 é"),
        ("utf-16-le", "UTF-16", "é"),
        ("utf-16-be", "UTF-16", "é"),
        ("utf-32", "UTF-32", "厌恶"),
    ],
)
@pytest.mark.parametrize("head", [HEAD, ""])
def test_encodings_are_recognised_and_named(encoding: str, name: str, text: str, head: str) -> None:
    if encoding.startswith("utf-16-") and not head:
        pytest.skip("a letter is not enough")
    found, encoding_name = decode_text("t.csv", (head + text).encode(encoding))
    assert found.removeprefix("\ufeff") == head + text
    assert encoding_name.startswith(name)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("big5", "驚訝,厭惡"), ("cp1250", "zdziwienie złość"), ("cp1252", "à"), ("cp1251", "а")],  # noqa: RUF001
)
def test_what_cannot_be_told_is_refused(encoding: str, text: str) -> None:
    with pytest.raises(ApexflowError, match=r"t\.csv: is not UTF-8, and its encoding cannot be"):
        decode_text("t.csv", (HEAD + text).encode(encoding))


@given(st.binary(max_size=60))
def test_any_bytes_are_text_or_a_refusal_in_one_line(data: bytes) -> None:
    message = ""
    try:
        text, name = decode_text("t.csv", data)
        assert name
        assert "\0" not in text
    except ApexflowError as error:
        message = str(error)
    assert "\n" not in message
