"""The application factory: `create_app(settings)`."""

import asyncio
import importlib.metadata
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.datastructures import State

from app.auth.audit import Audit, ServingObserver
from app.auth.key_store import KeyStore
from app.auth.keyring import Keyring
from app.auth.sessions import SessionStore
from app.database.engine import Database
from app.database.leader import Leader
from app.database.notifications import Notifications
from app.errors import problem_responses
from app.events.feed import Feed
from app.events.sinks.manager import SinkManager
from app.history.deletions import DeletionGuard
from app.history.drift import DriftMonitor
from app.history.drift_references import DriftReferences, load_latest_inspections
from app.history.filed_inspections import follow_filed
from app.history.history import History
from app.history.retention import Retention
from app.history.shared_drift import LeaderDrift, SharedDrift
from app.inspection.image_pipeline import InspectionPipeline
from app.inspection.predict_request import PredictHandler
from app.jobs.commands import Commands
from app.jobs.completion import Completion
from app.jobs.job_folders import JobFolders
from app.jobs.job_store import JobStore
from app.jobs.runner import JobRunner
from app.jobs.takeover import Takeover
from app.jobs.teacher import Teacher
from app.middleware.authentication import Guard
from app.middleware.lingering_close import LingeringClose
from app.middleware.request_context import RequestContext
from app.products.products import Products
from app.registry.calibrations import CalibrationFiles
from app.registry.category_settings import SettingsFiles
from app.registry.loaded_models import LoadedModels
from app.registry.loader import Loader
from app.registry.model_files import ModelFiles
from app.registry.model_store import ModelStore
from app.routes import openapi
from app.routes.gauges import Gauges
from app.routing import ROUTES
from app.scheduling.admission import Admission
from app.scheduling.batcher import Batcher
from app.scheduling.draining import Draining
from app.settings import Settings, unknown_variables
from app.storage.urls import open_store
from app.telemetry.metrics import Telemetry
from app.web.page import error_page
from flows.fastflow.imaging.image_limits import ImageLimits, max_uncompressed_bytes

logger = logging.getLogger("flowgauge.start")


def create_app(settings: Settings) -> FastAPI:
    """Create the service. Two services share no state."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for line in unknown_variables(os.environ):
            logger.warning(line)
        async with AsyncExitStack() as stack:  # closes in reverse order, also after an error at start
            await _open_history(app.state, stack)
            _open_inspection(app.state, stack)
            _open_jobs(app.state)
            app.state.leader = leader = Leader(app.state.database, partial(_lead, app.state))
            stack.push_async_callback(leader.close)
            await leader.open()
            if settings.store is None and not leader.leads:
                logger.warning(
                    "another server uses this database, and its images are on its disk alone: "
                    "set FLOWGAUGE_STORE on both, or stop one"
                )
            stack.callback(app.state.jobs.end)
            app.state.notifications.start()
            stack.push_async_callback(asyncio.to_thread, app.state.notifications.close)
            yield

    version = importlib.metadata.version("flowgauge")
    app = FastAPI(
        title="FlowGauge",
        summary="Visual inspection: a score, a decision and a heatmap for every image.",
        description="Errors are RFC 9457 problem details: branch on `type`. Every answer has X-Request-ID.",
        version=version,
        lifespan=lifespan,
        openapi_url=None,  # app/routes/reference.py serves it, with a page that needs no internet
        # A path with a superfluous slash is unknown, 404.
        redirect_slashes=False,
        routes=[*ROUTES],
    )
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]  # FastAPI's own way of extending it
    app.state.settings = settings
    app.state.telemetry = telemetry = Telemetry(version)
    app.state.draining = draining = Draining()
    # The last middleware added is the outermost.
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(RequestContext, telemetry=telemetry, draining=draining)
    app.add_middleware(LingeringClose)
    problem_responses.install_handlers(app, error_page)
    return app


async def _open_history(state: State, stack: AsyncExitStack) -> None:
    """Open the database, the history, events, sinks and keys."""
    settings: Settings = state.settings
    state.history = history = History(settings)
    state.database = database = history.database
    state.notifications = notifications = Notifications(database)
    state.audit = audit_log = Audit(database)
    observer = ServingObserver(audit_log)
    state.model_files = model_files = _create_model_files(settings, database)
    state.loaded_models = loaded_models = LoadedModels(
        model_files, Loader.from_settings(settings), settings.model_bytes, observer.record
    )
    state.calibrations = calibrations = CalibrationFiles(settings.models, model_files.changing)
    read_settings = SettingsFiles(settings.models).get
    references = DriftReferences(
        settings.models, read_settings, settings.precision, loaded_models.serving_version, calibrations
    )
    before = partial(load_latest_inspections, database)
    monitor = settings.drift_window, references, before, references.categories, references.stations
    state.deletions = deletions = DeletionGuard(None if database.is_sqlite else database)
    state.retention = retention = Retention(settings, history, deletions)
    state.feed = feed = Feed(database, settings.max_readers)
    history.on_filed(feed.wake)
    if database.is_sqlite:
        state.drift = drift = DriftMonitor(*monitor)
        history.on_filed(drift.on_filed)
        history.on_filed(retention.on_filed)
    else:  # the leader follows the inspections of all servers
        state.drift = SharedDrift(database, *monitor)
        state.leader_drift = partial(LeaderDrift, database, *monitor)
        notifications.on("deletions", retention.on_deletions)
    await history.open()
    stack.push_async_callback(history.close)
    follow = partial(loaded_models.follow_soon, asyncio.get_running_loop(), preload=settings.preload)
    await asyncio.to_thread(model_files.open, loaded_models.in_use, follow)
    notifications.on("models", model_files.refresh)
    state.products = products = Products(database, settings)
    await asyncio.to_thread(products.images.open)
    await feed.open()
    stack.push_async_callback(feed.close)
    state.draining.at_end.append(feed.end)
    state.sinks = SinkManager(settings, database, feed, history.identity)
    stack.push_async_callback(observer.close)
    state.keys = KeyStore(database)
    state.sessions = SessionStore(database)
    state.keyring = keyring = Keyring(database)
    notifications.on("keys", keyring.wake)
    notifications.on("events", feed.wake)
    keyring.start()
    stack.callback(keyring.close)


def _create_model_files(settings: Settings, database: Database) -> ModelFiles:
    """Create the models folder, which is a copy if there is a store."""
    if settings.store is None:
        return ModelFiles(settings.models)
    # Imported here: most servers have no store.
    from app.registry.shared_bundles import SharedBundles
    from app.registry.shared_models import SharedModels

    store = open_store(settings.store, "models")
    bundles = SharedBundles(settings.models, store, settings.store_cache_bytes)
    return SharedModels(settings.models, database, bundles)


def _open_inspection(state: State, stack: AsyncExitStack) -> None:
    """Open the models and the pipeline of an image."""
    settings: Settings = state.settings
    telemetry: Telemetry = state.telemetry
    loaded_models: LoadedModels = state.loaded_models
    history: History = state.history
    stack.callback(loaded_models.close)
    state.store = store = ModelStore(
        state.model_files, loaded_models, settings.max_bundle_bytes, state.calibrations
    )
    state.admission = admission = Admission(settings.queue_images, settings.queue_bytes)
    # max_bytes limits uploads. An image of raw pixels is a PNG by now, which for noise is larger than the
    # pixels; so is its copy in the history.
    largest = max(settings.max_bytes, max_uncompressed_bytes(settings.max_pixels))
    limits = ImageLimits(largest, settings.max_pixels)
    state.batcher = batcher = Batcher(settings.max_batch, telemetry.count_batch)
    stack.callback(batcher.close)
    state.pipeline = pipeline = InspectionPipeline(
        limits, settings.decode_threads, batcher, store, history, telemetry, settings.audit_share
    )
    stack.callback(pipeline.close)
    state.predictor = PredictHandler(settings, admission, batcher, loaded_models, pipeline, history)
    gauges = Gauges(state)
    telemetry.registry.register(gauges)
    stack.callback(telemetry.registry.unregister, gauges)
    if settings.preload:
        # In the background: the process answers /health/live and /docs while models load.
        preloading = asyncio.create_task(loaded_models.preload())
        stack.callback(preloading.cancel)


def _open_jobs(state: State) -> None:
    """Open the queue of jobs, and the teacher."""
    settings: Settings = state.settings
    products: Products = state.products
    store = None if settings.store is None else open_store(settings.store, "jobs")
    folders = JobFolders(settings.history.absolute(), store)
    commands = Commands(settings, state.history, products, folders, state.model_files)
    job_store = JobStore(state.database)
    takeover = Takeover(state.store, products, job_store, commands, state.audit)
    state.jobs = jobs = JobRunner(
        job_store,
        folders,
        commands,
        Completion(state.model_files, folders, products, takeover).complete,
        settings.job_threads,
    )
    wake = partial(asyncio.get_running_loop().call_soon_threadsafe, jobs.wake)
    state.notifications.on("jobs", wake)
    state.draining.at_end.append(jobs.end)
    state.teacher = Teacher(products, jobs, settings.models, state.audit)


@asynccontextmanager
async def _lead(state: State) -> AsyncIterator[None]:
    """Run the work of which there must be one, while this server leads."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(state.jobs.close)
        await state.jobs.open()
        stack.push_async_callback(state.sinks.close)
        await state.sinks.open()
        tasks = [state.retention.run(), state.teacher.run()]
        if not state.database.is_sqlite:
            callbacks = state.leader_drift().on_filed, state.retention.on_filed
            tasks.append(follow_filed(state.database, state.feed, callbacks))
        for task in map(asyncio.create_task, tasks):
            stack.callback(task.cancel)
        stack.callback(state.jobs.stop)  # at once, before anything is waited for
        yield
