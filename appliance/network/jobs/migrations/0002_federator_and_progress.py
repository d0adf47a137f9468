from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial")]

    operations = [
        migrations.AddField("job", "federator", models.CharField(default="", max_length=63), preserve_default=False),
        migrations.AddField("job", "progress", models.TextField(default="")),
        migrations.RemoveIndex("job", "job_queue"),
        migrations.AddIndex("job", models.Index(fields=["federator", "state", "submitted_at"], name="job_queue")),
    ]
