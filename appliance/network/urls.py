"""Every address of the network host."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.views import SpectacularAPIView

from appliance.network.audit.api import HeadView, LinesView
from appliance.network.health import HealthView
from appliance.network.jobs.api import CancelView, ClaimView, FailView, FinishView, JobsView, JobView, ProgressView
from appliance.network.members.api import CertificatesView, RegisterView
from appliance.network.metrics import MetricsView
from appliance.network.parameters.api import ContentView, UploadsView, UploadView
from appliance.network.presence.api import StateView

urlpatterns = [
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/v1/health", HealthView.as_view(), name="health"),
    path("api/v1/register", RegisterView.as_view(), name="register"),
    path("api/v1/certificates", CertificatesView.as_view(), name="certificates"),
    path("api/v1/members/me/state", StateView.as_view(), name="state"),
    path("api/v1/uploads", UploadsView.as_view(), name="uploads"),
    path("api/v1/uploads/<uuid:upload_id>", UploadView.as_view(), name="upload"),
    path("api/v1/uploads/<uuid:upload_id>/content", ContentView.as_view(), name="content"),
    path("api/v1/jobs", JobsView.as_view(), name="jobs"),
    path("api/v1/jobs/claim", ClaimView.as_view(), name="job-claim"),
    path("api/v1/jobs/<uuid:job_id>", JobView.as_view(), name="job"),
    path("api/v1/jobs/<uuid:job_id>/cancel", CancelView.as_view(), name="job-cancel"),
    path("api/v1/jobs/<uuid:job_id>/progress", ProgressView.as_view(), name="job-progress"),
    path("api/v1/jobs/<uuid:job_id>/finish", FinishView.as_view(), name="job-finish"),
    path("api/v1/jobs/<uuid:job_id>/fail", FailView.as_view(), name="job-fail"),
    path("api/v1/audit/head", HeadView.as_view(), name="audit-head"),
    path("api/v1/audit/lines", LinesView.as_view(), name="audit-lines"),
    path("metrics", MetricsView.as_view(), name="metrics"),
]

handler400 = "appliance.network.handlers.answer_400"
handler404 = "appliance.network.handlers.answer_404"
handler500 = "appliance.network.handlers.answer_500"
