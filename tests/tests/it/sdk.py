"""Sessions by way of the stock client's SDK: every method that a program may call."""

import asyncio
import base64
import json
import uuid
from pathlib import Path

from ai.backend.client.exceptions import BackendAPIError
from ai.backend.client.session import AsyncSession
from ai.backend.client.session import Session as SyncSession

IMAGE = "python"


async def run_to_end(session, code, mode="query", opts=None, answer=None):
    """Runs code step by step; its output, its phases and the last answer."""
    run_id, printed, phases = uuid.uuid4().hex[:16], "", []
    while True:
        result = await session.execute(run_id, code, mode=mode, opts=opts)
        printed += "".join(text for kind, text in result["console"] if kind == "stdout")
        phases.append(result["status"])
        if result["status"] == "finished":
            return printed, phases, result
        mode, code = "continue", ""
        if result["status"] == "waiting-input":
            mode, code = "input", answer


async def stream(session, code):
    """The same over the websocket."""
    printed = ""
    async with session.stream_execute(code, mode="query") as socket:
        async for message in socket:
            result = json.loads(message.data)
            printed += "".join(text for kind, text in result["console"] if kind == "stdout")
            if result["status"] == "finished":
                return printed, result["exitCode"]
            if result["status"] == "waiting-input":
                await socket.send_str("Grace")


async def terminal(session):
    """Types into the terminal until the shell has answered."""
    async with session.stream_pty() as pty:
        # Its own `resize` fails before it sends anything.
        await pty.send_json({"type": "resize", "rows": 40, "cols": 100})
        keys = base64.b64encode(b"echo $((6*7))-shown\n").decode()
        await pty.send_json({"type": "stdin", "chars": keys})
        shown = b""
        while b"42-shown" not in shown:
            frame = await pty.receive_json()
            shown += base64.b64decode(frame.get("data", ""))


async def main():
    async with AsyncSession() as api:
        Session = api.ComputeSession
        assert (await Session.hello())["version"]
        session = await Session.get_or_create(
            IMAGE, name="by-sdk", envs={"GREETING": "hi"}, tag="tagged",
            resources={"cpu": 1, "mem": "512m"}, resource_opts={"shmem": "64m"},
        )
        assert session.created and session.status == "RUNNING", vars(session)
        again = await Session.get_or_create(IMAGE, name="by-sdk")
        assert not again.created and again.id == session.id

        printed, _, result = await run_to_end(session, "import os; print(os.environ['GREETING'])")
        assert (printed, result["exitCode"]) == ("hi\n", 0), (printed, result)
        printed, phases, _ = await run_to_end(session, "print('I am', input('who? '))", answer="Ada")
        assert printed == "who? I am Ada\n" and "waiting-input" in phases, (printed, phases)
        assert await stream(session, "print('I am', input())") == ("I am Grace\n", 0)
        completed = await session.complete("import o", {"row": 0, "col": 8, "line": "import o", "post": ""})
        assert "os" in str(completed), completed
        await terminal(session)

        loop = "import time\nwhile True: time.sleep(0.01)"
        task = asyncio.create_task(run_to_end(session, loop))
        while not task.done():
            await session.interrupt()
            await asyncio.wait([task], timeout=0.2)
        _, _, result = task.result()
        assert "KeyboardInterrupt" in str(result["console"]), result

        Path("program.sh").write_text("echo built from $(cat part/data)\n")
        Path("part").mkdir()
        Path("part/data").write_text("two files")
        await session.upload(["program.sh", "part/data"])
        listed = await session.list_files(".")
        names = [entry["filename"] for entry in json.loads(listed["files"])]
        assert "program.sh" in names, listed
        printed, phases, result = await run_to_end(
            session, "", mode="batch",
            opts={"clean": None, "build": "cat part/data > built", "exec": "sh program.sh"},
        )
        assert "build-finished" in phases and result["exitCode"] == 0, (phases, result)
        assert "built from two files" in printed, printed
        Path("down").mkdir()
        await session.download(["built"], "down")
        assert Path("down/built").read_text() == "two files"

        # Executions are counted a moment later.
        while (info := await session.get_info())["numQueriesExecuted"] == 0:
            await asyncio.sleep(0.1)
        assert info["status"] == "RUNNING", info
        apps = await session.stream_app_info()
        assert {app["name"] for app in apps} >= {"sshd", "ttyd"}, apps
        assert (await session.get_status_history())["result"]["preparing"]
        graph = await session.get_dependency_graph()
        assert graph["session_name"] == "by-sdk", graph
        assert isinstance(await session.get_abusing_report(), dict)
        await session.rename("by-sdk-renamed")
        session = Session("by-sdk-renamed")
        listed = await Session.paginated_list(status="RUNNING")
        assert listed.total_count == 1, listed
        await session.restart()
        assert (await run_to_end(session, "print('x' in globals())"))[0] == "False\n"

        follow = asyncio.create_task(last_event(session))
        await session.destroy()
        assert await follow == "session_terminated"
        try:
            await Session("by-sdk-renamed").get_info()
        except BackendAPIError as error:
            assert error.status == 404, error
        else:
            raise AssertionError("a session that ended is found by its name")


async def last_event(session):
    async with session.listen_events() as events:
        async for event in events:
            if event.event == "session_terminated":
                return event.event


def synchronous():
    """The blocking SDK is the same API."""
    with SyncSession() as api:
        session = api.ComputeSession.get_or_create(IMAGE, name="blocking")
        result = session.execute(uuid.uuid4().hex[:16], "print(1 + 1)")
        assert result["console"][0] == ["stdout", "2\n"], result
        session.destroy()


asyncio.run(main())
synchronous()
print("the SDK works")
