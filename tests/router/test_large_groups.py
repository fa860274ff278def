"""Past a hundred members not everything is told to all, nor at once: receipts, typing, the list of members."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from router.membership import LARGE, Membership
from router.receipts import senders_concerned
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge, frame_of, is_message, send
from tests.router.test_membership import chat
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import conversation_pb2 as pb
from tidings.router.v1 import link_pb2
from tidings.router.v1.conversation_pb2_grpc import ConversationServiceStub
from tidings.store.v1.message_log_pb2 import MemberMarks

SIZE = LARGE + 20
NAMES = [f"m{n}" for n in range(SIZE)]


@pytest.fixture
async def service(router: Instance) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(router.grpc_address) as channel:
        yield ConversationServiceStub(channel)


def _group(mesh: Mesh) -> tuple[str, list[int]]:
    group = mesh.memory.group(*NAMES)
    return group.conversation.conversation_id, [mesh.memory.user(name).user_ordinal for name in NAMES]


def _marks(conversation_id: str, ordinals: list[int], numbers: range, **seqs: int) -> list[link_pb2.ReceiptDelta]:
    return [
        link_pb2.ReceiptDelta(user_ordinal=ordinals[n], user_id=NAMES[n], device_id="d", conversation_id=conversation_id, **seqs)
        for n in numbers
    ]


async def test_members_of_a_large_group_are_given_time_to_acknowledge(mesh: Mesh, router: Instance) -> None:
    group, ordinals = _group(mesh)
    mesh.memory.direct("m0", "m1")
    async with edge(router.grpc_address, *ordinals) as one:
        await one.batch(envelopes=[one.envelope("m0", ordinals[0], append_entry=send(group))])
        large = await one.delivery(is_message)
        assert sorted(large.user_ordinals) == sorted(ordinals)
        assert frame_of(large.frame).new_message.acknowledge_within_ms == SIZE
        await one.batch(envelopes=[one.envelope("m0", ordinals[0], append_entry=send(recipient_id="m1", client_msg_id="m2"))])
        direct = await one.delivery(is_message, after=1)
        assert frame_of(direct.frame).new_message.acknowledge_within_ms == 0


async def test_the_sender_is_told_many_marks_in_one_frame_and_a_reader_only_its_own(mesh: Mesh, router: Instance) -> None:
    group, ordinals = _group(mesh)
    async with edge(router.grpc_address, *ordinals) as one:
        seq = (await one.ask_frame("m0", ordinals[0], append_entry=send(group))).message_stored.seq
        await one.batch(receipts=_marks(group, ordinals, range(1, 101), delivered_seq=seq))
        receipt = await one.delivery(lambda frame: frame.HasField("receipt"))
        assert list(receipt.user_ordinals) == [ordinals[0]]
        marks = {mark.user_id: mark.delivered_seq for mark in frame_of(receipt.frame).receipt.watermarks}
        assert marks == {NAMES[n]: seq for n in range(1, 101)}
        before = len(one.deliveries)
        await one.batch(receipts=_marks(group, ordinals, range(1, 4), delivered_seq=seq, read_seq=seq))
        await one.until(lambda: len(one.deliveries) >= before + 4)
        told = {tuple(each.user_ordinals): frame_of(each.frame).receipt for each in one.deliveries[before:]}
        assert {mark.user_id for mark in told[(ordinals[0],)].watermarks} == {"m1", "m2", "m3"}
        for n in (1, 2, 3):
            assert [(mark.user_id, mark.read_seq) for mark in told[(ordinals[n],)].watermarks] == [(NAMES[n], seq)]


async def test_marks_are_told_only_as_the_store_has_them(mesh: Mesh, router: Instance) -> None:
    group, ordinals = _group(mesh)
    async with edge(router.grpc_address, *ordinals) as one:
        seq = (await one.ask_frame("m0", ordinals[0], append_entry=send(group))).message_stored.seq
        await one.batch(receipts=_marks(group, ordinals, range(1, 3), delivered_seq=seq + 1_000))
        receipt = await one.delivery(lambda frame: frame.HasField("receipt"))
        assert {mark.delivered_seq for mark in frame_of(receipt.frame).receipt.watermarks} == {seq}
        members = {each.user_ordinal: each.delivered_seq for each in mesh.memory.chat(group).conversation.members}
        assert [members[ordinals[n]] for n in (1, 2)] == [seq, seq]


async def test_nobody_is_told_who_types(mesh: Mesh, router: Instance) -> None:
    group, ordinals = _group(mesh)
    small = mesh.memory.group("m0", "m1").conversation.conversation_id
    async with edge(router.grpc_address, *ordinals) as one:
        for conversation_id in (group, small):
            typing = link_pb2.Typing(conversation_id=conversation_id, typing=True)
            await one.batch(envelopes=[one.envelope("m0", ordinals[0], typing=typing)])
        told = await one.delivery(lambda frame: frame.HasField("typing_indicator"))
        assert frame_of(told.frame).typing_indicator.conversation_id == small


async def test_a_change_is_told_without_the_list_of_members(mesh: Mesh, router: Instance, service: Any) -> None:
    group, ordinals = _group(mesh)
    newcomer = mesh.memory.user("newcomer").user_ordinal
    async with edge(router.grpc_address, newcomer, *ordinals) as one:
        request = pb.PutMemberRequest(user_id="m0", conversation_id=group, member_id="newcomer", role=3)  # type: ignore[arg-type]
        answer = await service.PutMember(request)
        assert len(answer.conversation.members) == SIZE + 1, "who asked is shown all"
        changed = await one.delivery(lambda frame: frame.HasField("conversation_changed"))
        assert sorted(changed.user_ordinals) == sorted([newcomer, *ordinals])
        said = frame_of(changed.frame).conversation_changed.conversation
        assert (said.conversation_id, said.membership_version, len(said.members)) == (
            group,
            answer.conversation.membership_version,
            0,
        )


def test_the_senders_of_all_that_was_passed_over_are_concerned_if_they_are_still_there() -> None:
    membership = Membership(chat("g", 1, *range(1, SIZE)))
    for seq, sender in ((4, 1), (5, 2), (6, 3), (7, 9_999)):
        membership.wrote(seq, sender)
    passed = [MemberMarks(previous_delivered_seq=4, delivered_seq=5), MemberMarks(delivered_seq=9, previous_delivered_seq=9)]
    assert senders_concerned(membership, passed) == {2}
    passed.append(MemberMarks(previous_delivered_seq=9, delivered_seq=9, previous_read_seq=5, read_seq=7))
    assert senders_concerned(membership, passed) == {2, 3}
    assert senders_concerned(membership, []) == set()


@pytest.mark.parametrize(("members", "milliseconds"), [(2, 0), (LARGE, 0), (LARGE + 1, LARGE + 1), (5_000, 5_000)])
def test_the_larger_the_conversation_the_more_time_its_devices_have(members: int, milliseconds: int) -> None:
    assert Membership(chat("g", 1, *range(1, members + 1))).acknowledge_within_ms == milliseconds


def test_who_joined_later_is_not_among_an_entrys_readers() -> None:
    conversation = chat("g", 1, *range(1, SIZE))
    conversation.members[5].visible_from_seq = 10
    membership = Membership(conversation)
    assert membership.barred(9) == [conversation.members[5].user_ordinal]
    assert membership.barred(10) == []
