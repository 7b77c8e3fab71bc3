"""A Django site with django-post-office, as small as can be; it runs in a virtual environment of its own.

python bench/rival_site.py URL PORT prepare MESSAGES     # makes the tables, and queues so many messages
python bench/rival_site.py URL PORT send PROCESSES LOCK  # sends them to the relay at PORT

`send` says on its first line when it begins, by the monotonic clock: Django is loaded then.
"""

import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command

_LETTER = Path(__file__).with_name("letter")


def configure(url: str, port: int) -> None:
    """Set up Django. Several processes work in batches of 1,000, which is quicker than what it ships with."""
    parts = urlsplit(url)
    name = parts.path[1:]
    kind = "sqlite3" if parts.scheme == "sqlite" else "postgresql"
    database = {"ENGINE": f"django.db.backends.{kind}", "NAME": name}
    if kind == "postgresql":
        database |= {"HOST": parts.hostname, "PORT": parts.port, "USER": parts.username}
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
        DATABASES={"default": database},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        EMAIL_BACKEND="post_office.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=port,
        POST_OFFICE={
            "BATCH_SIZE": 1000,
            "THREADS_PER_PROCESS": 5,
            "MESSAGE_ID_ENABLED": True,
            "LOG_LEVEL": 1,
        },
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=True,
    )
    django.setup()


def prepare(messages: int) -> None:
    """Queue messages that are rendered when they are sent."""
    from post_office import mail
    from post_office.models import Email, EmailTemplate

    call_command("migrate", verbosity=0)
    template = EmailTemplate.objects.create(
        name="spring",
        subject=(_LETTER / "subject.txt").read_text().strip(),
        content=(_LETTER / "text.txt").read_text(),
        html_content=(_LETTER / "html.html").read_text(),
    )
    emails = [
        mail.create(
            "bounces@sender.test",
            [f"person{number}@domain{1 + number % 100}.test"],
            template=template,
            context=_context(number),
            render_on_delivery=True,
            commit=False,
        )
        for number in range(1, messages + 1)
    ]
    Email.objects.bulk_create(emails, batch_size=1000)


def _context(number: int) -> dict[str, object]:
    return {
        "name": f"{'Anna Carter' if number % 4 else 'Zoë Müller'} {number}",
        "store": "Example News",
        "city": f"City {number % 500}",
        "points": number % 5000,
        "gold": number % 3 == 0,
        "since": f"20{10 + number % 16}-03-21",
        "until": "31 May",
        "voucher": f"SPRING-{number}",
        "unsubscribe_url": f"https://news.sender.test/u/{number:040}",
    }


def main(arguments: list[str]) -> None:
    """Do what the command line asks for."""
    url, port, deed, count, *lock = arguments
    configure(url, int(port))
    if deed == "prepare":
        prepare(int(count))
    else:
        print(time.monotonic(), flush=True)
        call_command("send_queued_mail", processes=int(count), lockfile=lock[0], log_level=1)


if __name__ == "__main__":
    main(sys.argv[1:])
