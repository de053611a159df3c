"""What a payload costs on the wire, without training: two cells of FLARE in one process, joined by TCP on the loopback.

The payloads, the codec, the DXO, FLARE's serialisation and its transfer of tensors are those of a job. Only FLARE's own
headers of a task are missing, 0.6 kB in each direction.
"""

import logging
import re
import socket
from typing import Any

import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.message import Message

from fedpeft.algebra.codec import decode, encode, roundtrip
from fedpeft.config.run import Run
from fedpeft.flare.filters import IDENTITY
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import META

CHANNEL = "traffic"
SECONDS = 300
DOWNLOADED = re.compile(r"\[client\] download ref=.*\(([\d,]+) bytes\)")
Sizes = dict[str, dict[str, int]]


class Downloads(logging.Handler):
    """Collects the sizes that FLARE logs when a receiver has fetched a message's tensors."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.sizes: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        """FLARE's line of a finished transfer, or any other."""
        if found := DOWNLOADED.search(record.getMessage()):
            self.sizes.append(int(found[1].replace(",", "")))


class Wire:
    """A server's and a site's cell, FLARE's end points of messages."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        self._downloads = Downloads()
        logger = logging.getLogger("nvflare.fuel.f3.streaming.download_service")
        logger.setLevel(logging.INFO)
        logger.addHandler(self._downloads)
        self._server, self._site = (Cell(name, url, False, {}) for name in ("server", "site-1"))
        self._content: Shareable | None = None
        self._uploaded: Message | None = None
        for topic, answer in (("get", self._give), ("put", self._take)):
            self._server.register_request_cb(channel=CHANNEL, topic=topic, cb=answer)
        self._server.start()
        self._site.start()

    def stop(self) -> None:
        """End both cells."""
        self._site.stop()
        self._server.stop()

    def sizes(self, run: Run) -> Sizes:
        """Direction -> bytes of message and tensors of a whole payload, down to the site and up to the server.

        Raises:
            RuntimeError: what arrived is not what was sent.
        """
        shapes = JobRun(run.to_dict()).payload(0)
        generator = torch.Generator().manual_seed(0)
        tensors = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        self._content, self._downloads.sizes = _content(encode(tensors, run.federation.codec)), []
        messages = {"down": self._ask("get", {}), "up": None}
        self._ask("put", self._content)
        messages["up"] = self._uploaded
        expected = roundtrip(tensors, run.federation.codec)
        for way, message in messages.items():
            found = decode(from_shareable(message.payload).data, shapes, run.federation.codec)
            if any(not torch.equal(found[key], value) for key, value in expected.items()):
                raise RuntimeError(
                    f"{run.model.method}, {run.federation.codec}: what arrived {way} is not what was sent"
                )
        lengths = [message.get_header(MessageHeaderKey.PAYLOAD_LEN) for message in messages.values()]
        pairs = zip(messages, lengths, self._downloads.sizes, strict=True)
        return {way: {"message": message, "tensors": size} for way, message, size in pairs}

    def _ask(self, topic: str, payload: Any) -> Message:
        # By keyword: only then does the cell stream the tensors, as it does for tasks.
        reply = self._site.send_request(
            channel=CHANNEL, topic=topic, target="server", request=Message({}, payload), timeout=SECONDS
        )
        if reply.get_header(MessageHeaderKey.RETURN_CODE) != ReturnCode.OK:
            raise RuntimeError(f"the transfer ended as {reply.headers}")
        return reply

    def _give(self, request: Message) -> Message:
        return make_reply(ReturnCode.OK, "", self._content)

    def _take(self, request: Message) -> Message:
        self._uploaded = request
        return make_reply(ReturnCode.OK)


def _content(tensors: dict[str, torch.Tensor]) -> Shareable:
    shareable = DXO(DataKind.WEIGHTS, data=tensors, meta={META: dict.fromkeys(IDENTITY, "0" * 64)}).to_shareable()
    shareable.set_header(AppConstants.CURRENT_ROUND, 0)
    return shareable
