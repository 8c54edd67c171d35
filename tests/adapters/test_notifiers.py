"""Notices reach files, a real mail server and a real web hook, whenever these are up."""

import email
import email.policy
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from msgspec.structs import replace

from orders import Notice, OrdersError, PlaceOrder, Settings, bootstrap
from orders.adapters.notifiers import ConsoleNotifier, mail, open_notifier
from orders.errors import NoticeRefused, UnusableChannel

# Of apprise, which imports it where Python still has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")

NOTICE = Notice("aafc3ad9-417c-484b-8ed7-3960e7241ba8", ("100 inch TV", "Käse, <b>soft</b>"))
TEXT = (
    "============\nNew Order:\n============\n"
    "ID: aafc3ad9-417c-484b-8ed7-3960e7241ba8\nItems: ['100 inch TV', 'Käse, <b>soft</b>']\n"
)


class MailServer:
    """Keeps the mail it takes; refuses that for `nobody@...`."""

    def __init__(self, port):
        self.port = port
        self.mails = []
        self.envelopes = []
        self.logins = []

    async def handle_RCPT(self, _server, _session, envelope, address, _options):
        if address.startswith("nobody@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, _session, envelope):
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos))
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.SMTP))
        return "250 taken"

    def log_in(self, _server, _session, _envelope, _mechanism, data):
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=True)

    @contextmanager
    def up(self):
        options = {"authenticator": self.log_in, "auth_require_tls": False}
        server = Controller(self, hostname="127.0.0.1", port=self.port, **options)
        server.start()
        yield
        server.stop()


class WebHook:
    """Keeps the JSON that is posted to it."""

    def __init__(self, port):
        self.port = port
        self.posted = posted = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._handler = Handler

    @contextmanager
    def up(self):
        with HTTPServer(("127.0.0.1", self.port), self._handler) as server:
            thread = Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield
            server.shutdown()
            thread.join()


@pytest.fixture
def port():
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def mail_server(port):
    return MailServer(port)


@pytest.fixture
def web_hook(port):
    return WebHook(port)


# Which channel


def test_notices_go_to_the_console_unless_the_environment_names_a_channel():
    assert Settings.from_environment({}).notify == "console"
    assert Settings.from_environment({"ORDERS_NOTIFY": "file:x"}).notify == "file:x"
    assert isinstance(open_notifier("console"), ConsoleNotifier)


def test_an_application_notifies_where_its_settings_say_unless_it_is_given_a_notifier(
    tmp_path, sales
):
    settings = Settings(notify=f"file:{tmp_path}/notices")
    for dependencies in ({}, {"notifier": sales}):
        with bootstrap(":memory:", settings=settings, strict=True, **dependencies) as app:
            app.bus.send(PlaceOrder(("rope",)))
    assert (tmp_path / "notices").read_text().count("New Order") == 1
    assert len(sales.notices) == 1


@pytest.mark.parametrize(
    "address",
    [
        "",
        "consol",
        "secret",
        "file:",
        "file:/",
        "file:/no/such/directory/notices",
        "file:/dev/null",
        "smtp:",
        "smtp://",
        "smtp://:25",
        "smtp://user:secret@",
        "smtp://user:secret@host:99999",
        "smtp://user:secret@host:port",
        "smtp://user:secret#1@host",
        "smtp://user:25/secret@host",
        "smtp://user:secr\N{LATIN SMALL LETTER E WITH ACUTE}t@host",
        "smtp://[user:secret@host",
        "smtp://user:secret@host?too=sales@example.com",
        "smtp://user:secret@host?to",
        "smtp://user:secret@host?to=sales",
        "smtp://user:secret@host?to=sales@example.com,",
        "smtp://user:secret@host?from=a@example.com&from=b@example.com",
        "smtp://user:secret@host?to=sales@example.com%0ABcc:x@example.com",
        "nonsense://user:secret@host",
        "json://",
        "tgram://secret",
    ],
)
@pytest.mark.sample(5)
def test_an_address_that_cannot_be_used_is_refused_without_showing_its_password(
    address, tool, data, capfd
):
    with pytest.raises(UnusableChannel) as refused:
        open_notifier(address)
    placed = tool("place", "rope", env={"ORDERS_NOTIFY": address or "nothing"})
    assert (placed.returncode, placed.stdout, placed.stderr.count("\n")) == (1, "", 2)
    assert not data.exists()
    said = f"{refused.value}{refused.value.__cause__}{placed.stderr}{capfd.readouterr()}"
    assert "secr" not in said


def test_a_service_that_needs_a_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(OrdersError, match=r'pip install "orders\[notify\]"'):
        open_notifier("json://127.0.0.1")


def test_place_imports_no_channel_that_it_does_not_use():
    script = """
import atexit, runpy, sys
names = {"smtplib", "email", "ssl", "socket", "http", "apprise", "requests"}
atexit.register(lambda: print({
    name for name in sys.modules if name in names or "notifiers." in name}, file=sys.stderr))
sys.argv = ["orders", "place", "rope"]
runpy.run_module("orders", run_name="__main__")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stderr == "{'orders.adapters.notifiers.console'}\n"


# A file


def test_a_file_has_every_notice_whole(tmp_path):
    for _ in range(2):
        open_notifier(f"file:{tmp_path}/notices").notify(NOTICE)
    assert (tmp_path / "notices").read_text() == 2 * TEXT


def test_a_relative_path_stays_where_it_was_opened(tmp_path, monkeypatch):
    notifier = open_notifier("file:notices")
    monkeypatch.chdir("/")
    notifier.notify(NOTICE)
    assert (tmp_path / "notices").read_text() == TEXT


def test_a_notice_that_does_not_fit_on_the_disk_leaves_no_part_of_it(tmp_path, fork):
    path = tmp_path / "notices"
    notifier = open_notifier(f"file:{path}")
    notifier.notify(NOTICE)

    def notify():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(TEXT) + 20, resource.RLIM_INFINITY))
        with pytest.raises(NoticeRefused, match=f"{path} did not take the notice: No space left"):
            notifier.notify(NOTICE)

    assert fork(notify).wait() == 0
    assert path.read_text() == TEXT


def test_a_notice_that_cannot_be_synced_has_not_been_delivered(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NoticeRefused, match="Input/output error"):
        open_notifier(f"file:{tmp_path}/notices").notify(NOTICE)
    assert (tmp_path / "notices").read_bytes() == b""


def test_eight_processes_mix_no_notices(tmp_path, fork):
    def notify():
        for _ in range(20):
            open_notifier(f"file:{tmp_path}/notices").notify(NOTICE)

    assert [child.wait() for child in [fork(notify) for _ in range(8)]] == [0] * 8
    assert (tmp_path / "notices").read_text() == 160 * TEXT


def test_the_tool_appends_to_the_file_and_names_the_order(tool, tmp_path):
    placed = tool("place", "rope", env={"ORDERS_NOTIFY": "file:notices"})
    order_id = placed.stderr.removeprefix("Placed order ").removesuffix(".\n")
    assert (placed.returncode, placed.stdout) == (0, "")
    assert f"ID: {order_id}\n" in (tmp_path / "notices").read_text()


# Mail


def test_a_mail_has_the_notice_for_its_text_and_the_order_in_its_subject(mail_server):
    with mail_server.up():
        options = "to=sales@example.com,boss@example.com&from=shop@example.com"
        open_notifier(f"smtp://127.0.0.1:{mail_server.port}?{options}").notify(NOTICE)
    (sent,) = mail_server.mails
    assert sent["Subject"] == f"New Order: order {NOTICE.order_id}"
    assert (sent["From"], sent["To"]) == (
        "shop@example.com",
        "sales@example.com, boss@example.com",
    )
    assert sent.get_content().replace("\r\n", "\n") == TEXT
    assert mail_server.envelopes == [
        ("shop@example.com", ["sales@example.com", "boss@example.com"])
    ]


def test_a_repeated_mail_has_the_message_id_of_the_first_and_any_other_has_not(mail_server):
    with mail_server.up():
        notifier = open_notifier(f"smtp://127.0.0.1:{mail_server.port}")
        for notice in (NOTICE, NOTICE, replace(NOTICE, title="Bestseller")):
            notifier.notify(notice)
    first, again, other = (sent["Message-ID"] for sent in mail_server.mails)
    assert first == again != other


def test_a_user_logs_in_and_writes_to_himself(mail_server):
    with mail_server.up():
        address = f"smtp://mae%40example.com:s%3Aecret@127.0.0.1:{mail_server.port}"
        open_notifier(address).notify(NOTICE)
    assert mail_server.logins == [("mae@example.com", "s:ecret")]
    assert mail_server.envelopes == [("mae@example.com", ["mae@example.com"])]


def test_a_mail_that_one_recipient_does_not_get_is_refused(mail_server):
    address = f"smtp://127.0.0.1:{mail_server.port}?to=sales@example.com,nobody@example.com"
    with mail_server.up(), pytest.raises(NoticeRefused, match="no such user"):
        open_notifier(address).notify(NOTICE)


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("smtp://h", 25),
        ("smtp://u:p@h", 587),
        ("smtps://h", 465),
        ("smtps://u:p@h", 465),
        ("smtp://h:2525", 2525),
    ],
)
def test_ports_are_the_usual_ones(address, port):
    assert mail.MailRoute.parse(address).port == port


@contextmanager
def scripted(*answers):
    """A mail server that says these lines, in turn; yields its port and what it was sent."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            client, _ = server.accept()
            with client:
                for answer in answers:
                    client.sendall(answer)
                    heard.append(client.recv(4096))

        thread = Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], heard
        thread.join()


TLS = b"\x16\x03"  # how a TLS handshake begins


def test_smtps_is_encrypted_from_the_first_byte():
    with scripted(b"") as (port, heard), pytest.raises(NoticeRefused):
        open_notifier(f"smtps://user:secret@127.0.0.1:{port}").notify(NOTICE)
    assert heard[0].startswith(TLS)


def test_a_password_is_encrypted_where_the_server_can():
    answers = (b"220 hello\r\n", b"250-host\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n", b"220 go\r\n")
    with scripted(*answers) as (port, heard), pytest.raises(NoticeRefused):
        open_notifier(f"smtp://user:secret@127.0.0.1:{port}").notify(NOTICE)
    _, begun, encrypted = heard
    assert begun.upper() == b"STARTTLS\r\n"
    assert encrypted.startswith(TLS)


def test_a_server_that_hangs_is_given_up(monkeypatch):
    assert mail.TIMEOUT == 10
    monkeypatch.setattr(mail, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = open_notifier(f"smtp://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(NoticeRefused, match="timed out"):
            notifier.notify(NOTICE)


# Down, then up


def test_what_a_mail_server_missed_is_delivered_by_retry(tool, mail_server):
    channel = {"ORDERS_NOTIFY": f"smtp://user:secret@127.0.0.1:{mail_server.port}"}
    order_id = missed(tool, channel)
    with mail_server.up():
        again = tool("retry", "--all", env=channel)
    assert (again.returncode, again.stderr) == (0, "1 of 1 delivered.\n")
    (sent,) = mail_server.mails
    assert f"ID: {order_id}\r\n" in sent.get_content()
    assert tool("deliveries", "--failed").stdout == ""


def test_what_a_web_hook_missed_is_delivered_by_retry(tool, web_hook):
    channel = {"ORDERS_NOTIFY": f"json://user:secret@127.0.0.1:{web_hook.port}/orders"}
    order_id = missed(tool, channel)
    with web_hook.up():
        again = tool("retry", "--all", env=channel)
    assert (again.returncode, again.stderr) == (0, "1 of 1 delivered.\n")
    (posted,) = web_hook.posted
    assert posted["title"] == f"New Order: order {order_id}"
    assert f"ID: {order_id}\nItems: ['<rope>']" in posted["message"]


def missed(tool, channel):
    """Place an order while the channel is down; return its id."""
    placed = tool("place", "<rope>", env=channel)
    warning, hint, said = placed.stderr.splitlines()
    assert placed.returncode == 0
    assert warning.startswith("warning: order_created failed on OrderCreated")
    assert "orders retry --all" in hint
    failed = tool("deliveries", "--failed", "--json").stdout
    assert json.loads(failed)[0]["status"] == "failed"
    for shown in (placed.stdout, placed.stderr, failed, tool("log").stdout):
        assert "secret" not in shown
    return said.removeprefix("Placed order ").removesuffix(".")
