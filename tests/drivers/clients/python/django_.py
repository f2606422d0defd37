"""Django: its migrations, the ORM, atomic blocks, and a cursor on the server within a transaction."""

import io

import django
from django.conf import settings

from steps import DATABASE, HOST, PASSWORD, PORT, USER, equal, in_threads, run, step

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": HOST,
            "PORT": PORT,
            "NAME": DATABASE,
            "USER": USER,
            "PASSWORD": PASSWORD,
            "DISABLE_SERVER_SIDE_CURSORS": True,  # Django's manual wants it behind any transaction pooler
            "OPTIONS": {"server_side_binding": True},
        }
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import Group, Permission  # noqa: E402, needs the settings
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402


@step
def migrates():
    call_command("migrate", stdout=io.StringIO(), verbosity=0)
    assert Permission.objects.count() > 0


@step
def rolls_back():
    Group.objects.all().delete()
    try:
        with transaction.atomic():
            Group.objects.create(name="gone")
            raise KeyError
    except KeyError:
        pass
    equal(0, Group.objects.count())


@step
def iterates():
    with transaction.atomic():
        equal(Permission.objects.count(), len(list(Permission.objects.iterator(chunk_size=2))))


@step
def many_threads():
    def one(i):
        try:
            with transaction.atomic():
                group = Group.objects.create(name=f"group {i}")
                equal(group.pk, Group.objects.get(name=f"group {i}").pk)
        finally:
            connection.close()

    in_threads(one)
    equal(200, Group.objects.count())


run()
