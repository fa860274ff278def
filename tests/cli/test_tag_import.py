"""CSV files as people write them, and what is wrong with others."""

from pathlib import Path

import pytest

from cli import tag_import
from cli.failure import CommandError
from cli.tag_import import CHUNK, CHUNK_TAGS, chunks, rows


def written(folder: Path, text: str) -> Path:
    path = folder / "people.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "user_id,tag\nann,vip\nann,beta\nbob,vip\n",
        "user_id,tags\nann,vip;beta\nbob,vip\n",
        "tags,user\nvip|beta,ann\nvip,bob\n",
        "user_id,vip,beta\nann,1,yes\nbob,X,0\n",
        "\ufeffUser_ID , tags\r\nann,vip; beta\r\n\r\nbob,vip\r\n",
        'user_id,tags\n"ann","vip;beta"\nbob,vip\n',
    ],
)
def test_the_same_people_in_every_form(tmp_path: Path, text: str) -> None:
    held = {(user, tag) for user, tags in rows(written(tmp_path, text)) for tag in tags}
    assert held == {("ann", "vip"), ("ann", "beta"), ("bob", "vip")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column is named user_id"),
        ("name,tag\nann,vip\n", "no column is named user_id"),
        ("user_id,tag\nann\n", "line 2: 1 columns, the first row has 2"),
        ("user_id,tag\nann,vip\nbob,vip,beta\n", "line 3: 3 columns"),
        ("user_id,vip\nann,perhaps\n", "line 2, column 'vip': 'perhaps' is neither yes nor no"),
        ("user_id,tag\nann,vip\na b,vip\n", "line 3: 'a b' is not a user id"),
        ("user_id,tag\n,vip\n", "line 2: '' is not a user id"),
        ('user_id,tags\nann,"say ""hi"""\n', "line 2: 'say \"hi\"' can't be a tag"),
        ("user_id,tag,user_id\nann,vip,bob\n", "two columns have the same name"),
        ("user_id,,vip\nann,1,1\n", "one has none"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CommandError) as raised:
        list(rows(written(tmp_path, text)))
    assert said in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="can't read"):
        list(rows(tmp_path / "none.csv"))
    path = tmp_path / "latin.csv"
    path.write_bytes("user_id,tag\njosé,vip\n".encode("latin-1"))
    with pytest.raises(CommandError, match="UTF-8"):
        list(rows(path))


def test_chunks_hold_no_more_than_the_service_takes() -> None:
    people = [(f"user{number}", ["vip", "beta"]) for number in range(CHUNK)]
    found = list(chunks(iter(people)))
    assert [count for count, _, _ in found] == [CHUNK // 2, CHUNK // 2]
    assert sum(memberships for _, memberships, _ in found) == 2 * CHUNK
    for _, memberships, request in found:
        assert memberships == sum(len(change.add_user_ids) for change in request.tags) <= CHUNK
        assert request.create_tags


def test_chunks_keep_below_every_bound_of_the_service() -> None:
    people = [(f"user{number:0>110}", [f"tag{number % 3_000}"]) for number in range(30_000)]
    found = list(chunks(iter(people)))
    assert sum(memberships for _, memberships, _ in found) == 30_000
    for _, _, request in found:
        assert request.ByteSize() < 4 * 1024 * 1024
        assert len(request.tags) <= CHUNK_TAGS


def test_taking_away_creates_nothing() -> None:
    (_, _, request), *others = tag_import.chunks(iter([("ann", ["vip"])]), remove=True)
    assert not others
    assert [change.remove_user_ids for change in request.tags] == [["ann"]]
    assert not request.create_tags
