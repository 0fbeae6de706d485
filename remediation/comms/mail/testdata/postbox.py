"""A mailbox for aiosmtpd: what it takes lies in a folder, one file a message.

Files in the folder tell it how to behave:
  refuse/ADDRESS  holds the answer to RCPT TO of that address
  hang-up         the next message is kept, and its answer is lost
"""

import os

from aiosmtpd.smtp import AuthResult


class Postbox:
    def __init__(self, folder, password):
        self.folder, self.password = folder, password

    @classmethod
    def from_cli(cls, parser, folder, password=""):
        return cls(folder, password)

    async def auth_PLAIN(self, server, args):
        login = await server._auth_interact("") if len(args) == 1 else __import__("base64").b64decode(args[1])
        _, user, password = login.split(b"\0")
        good = user == b"backout" and password.decode() == self.password
        return AuthResult(success=good, handled=False)

    async def handle_MAIL(self, server, session, envelope, address, options):
        if self.password and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        try:
            with open(os.path.join(self.folder, "refuse", address)) as f:
                return f.read()
        except FileNotFoundError:
            envelope.rcpt_tos.append(address)
            return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        n = len(os.listdir(os.path.join(self.folder, "new")))
        kept = os.path.join(self.folder, "new", "%04d" % n)
        with open(kept + ".next", "wb") as f:
            f.write(("%s\n" % " ".join(envelope.rcpt_tos)).encode() + envelope.original_content)
        os.rename(kept + ".next", kept)
        try:
            os.remove(os.path.join(self.folder, "hang-up"))
        except FileNotFoundError:
            return "250 OK"
        server.transport.abort()
        return "250 lost"
