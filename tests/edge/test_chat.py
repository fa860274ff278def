"""Two people chat over real WebSockets and a real link."""

from mesh.naming import direct_conversation_id
from tests.edge.conftest import Start
from tidings.client.v1.frames_pb2 import Acknowledge, Heartbeat
from tidings.common.v1.conversation_pb2 import Position

CHAT = direct_conversation_id("alice", "bob")


async def test_a_message_is_stored_and_delivered(start: Start) -> None:
    edge = await start()
    alice, bob = await edge.online("alice"), await edge.online("bob")
    await alice.send("bob", "hi", "m1")
    stored = (await alice.until("message_stored")).message_stored
    assert (stored.client_msg_id, stored.conversation_id, stored.seq) == ("m1", CHAT, 1)
    entry = (await bob.until("new_message")).new_message.entry
    assert (entry.content.text.text, entry.seq) == ("hi", 1)
    await bob.say(acknowledge=Acknowledge(positions=[Position(conversation_id=CHAT, seq=1)]))
    await edge.router.saw(lambda router: any(request.batch.receipts for request in router.requests))


async def test_a_heartbeat_is_answered(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    await alice.say(request_id=9, heartbeat=Heartbeat())
    assert (await alice.until("heartbeat")).request_id == 9
