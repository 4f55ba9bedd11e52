"""Subjects, payloads and contracts of the scheduler service."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from shared.platform.streams import declare


class ScheduleType(StrEnum):
    """What decides when a schedule runs."""

    CRON = "cron"
    INTERVAL = "interval"
    ONE_TIME = "one_time"
    IMMEDIATE = "immediate"


class ExecutionStatus(StrEnum):
    """How far one run has come."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


class SchedulerCommands:
    """What the scheduler can be asked."""

    SCHEDULE_CREATE = "cmd.scheduler.schedule.create"
    SCHEDULE_UPDATE = "cmd.scheduler.schedule.update"
    SCHEDULE_DELETE = "cmd.scheduler.schedule.delete"
    SCHEDULE_PAUSE = "cmd.scheduler.schedule.pause"
    SCHEDULE_RESUME = "cmd.scheduler.schedule.resume"
    SCHEDULE_TRIGGER = "cmd.scheduler.schedule.trigger"
    EXECUTE_IMMEDIATE = "cmd.scheduler.execute.immediate"


class SchedulerEvents:
    """What the scheduler tells."""

    SCHEDULE_CREATED = "evt.scheduler.schedule.created"
    SCHEDULE_UPDATED = "evt.scheduler.schedule.updated"
    SCHEDULE_DELETED = "evt.scheduler.schedule.deleted"
    SCHEDULE_PAUSED = "evt.scheduler.schedule.paused"
    SCHEDULE_RESUMED = "evt.scheduler.schedule.resumed"
    SCHEDULE_TRIGGERED = "evt.scheduler.schedule.triggered"
    EXECUTION_STARTED = "evt.scheduler.execution.started"
    EXECUTION_COMPLETED = "evt.scheduler.execution.completed"
    EXECUTION_FAILED = "evt.scheduler.execution.failed"


class CreateScheduleCommandPayload(BaseModel):
    """Make a schedule: at its times `command_payload` is sent to `target_command`.

    `schedule_type` says which of `cron_expression`, `interval_seconds` and `scheduled_at` counts;
    cron expressions are read in `timezone`. A priority of 1 goes first.
    """

    name: str
    description: str | None = None
    schedule_type: ScheduleType
    cron_expression: str | None = None
    interval_seconds: int | None = None
    scheduled_at: datetime | None = None
    timezone: str = "UTC"
    target_command: str
    command_payload: dict[str, Any] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    priority: int = Field(default=5, ge=1, le=10)
    max_retries: int = Field(default=3, ge=0)
    retry_delay_seconds: int = Field(default=300, ge=0)
    created_by: str | None = None


class UpdateScheduleCommandPayload(BaseModel):
    """Change a schedule; what is not set stays as it is."""

    schedule_id: UUID
    name: str | None = None
    description: str | None = None
    schedule_type: ScheduleType | None = None
    cron_expression: str | None = None
    interval_seconds: int | None = None
    scheduled_at: datetime | None = None
    timezone: str | None = None
    target_command: str | None = None
    command_payload: dict[str, Any] | None = None
    tags: list[str] | None = None
    priority: int | None = Field(default=None, ge=1, le=10)
    max_retries: int | None = Field(default=None, ge=0)
    retry_delay_seconds: int | None = Field(default=None, ge=0)
    is_active: bool | None = None


class DeleteScheduleCommandPayload(BaseModel):
    """End a schedule; its history stays unless `hard_delete`."""

    schedule_id: UUID
    hard_delete: bool = False


class PauseScheduleCommandPayload(BaseModel):
    """Let a schedule rest."""

    schedule_id: UUID
    reason: str | None = None


class ResumeScheduleCommandPayload(BaseModel):
    """Let a paused schedule go on."""

    schedule_id: UUID


class TriggerScheduleCommandPayload(BaseModel):
    """Run a schedule now, beside its own times."""

    schedule_id: UUID
    override_payload: dict[str, Any] | None = None


class ExecuteImmediateCommandPayload(BaseModel):
    """Send a command now, without a schedule."""

    target_command: str
    command_payload: dict[str, Any] = Field(default_factory=dict)
    priority: int = Field(default=5, ge=1, le=10)


class ScheduleCreatedEventPayload(BaseModel):
    """A schedule was made."""

    schedule_id: UUID
    name: str
    schedule_type: ScheduleType
    target_command: str
    next_run_at: datetime | None
    created_by: str
    created_at: datetime


class ScheduleUpdatedEventPayload(BaseModel):
    """A schedule was changed."""

    schedule_id: UUID
    updated_fields: list[str]
    next_run_at: datetime | None
    updated_by: str
    updated_at: datetime


class ScheduleDeletedEventPayload(BaseModel):
    """A schedule was ended."""

    schedule_id: UUID
    deleted_by: str
    deleted_at: datetime
    hard_delete: bool


class SchedulePausedEventPayload(BaseModel):
    """A schedule rests."""

    schedule_id: UUID
    reason: str | None
    paused_by: str
    paused_at: datetime


class ScheduleResumedEventPayload(BaseModel):
    """A schedule goes on."""

    schedule_id: UUID
    next_run_at: datetime | None
    resumed_by: str
    resumed_at: datetime


class ScheduleTriggeredEventPayload(BaseModel):
    """A schedule was run beside its own times."""

    schedule_id: UUID
    execution_id: UUID
    triggered_by: str
    triggered_at: datetime


class ExecutionStartedEventPayload(BaseModel):
    """A run began; `attempt_number` counts from one."""

    execution_id: UUID
    schedule_id: UUID
    schedule_name: str
    target_command: str
    scheduled_for: datetime
    started_at: datetime
    attempt_number: int = 1


class ExecutionCompletedEventPayload(BaseModel):
    """A run ended."""

    execution_id: UUID
    schedule_id: UUID
    status: ExecutionStatus
    duration_ms: int
    completed_at: datetime
    next_run_at: datetime | None


class ExecutionFailedEventPayload(BaseModel):
    """An attempt failed; the next is at `retry_at` when `will_retry`."""

    execution_id: UUID
    schedule_id: UUID
    error_message: str
    error_type: str | None
    will_retry: bool
    retry_at: datetime | None
    attempt_number: int
    failed_at: datetime


SCHEDULE_CREATE = declare(SchedulerCommands.SCHEDULE_CREATE, CreateScheduleCommandPayload)
SCHEDULE_UPDATE = declare(SchedulerCommands.SCHEDULE_UPDATE, UpdateScheduleCommandPayload)
SCHEDULE_DELETE = declare(SchedulerCommands.SCHEDULE_DELETE, DeleteScheduleCommandPayload)
SCHEDULE_PAUSE = declare(SchedulerCommands.SCHEDULE_PAUSE, PauseScheduleCommandPayload)
SCHEDULE_RESUME = declare(SchedulerCommands.SCHEDULE_RESUME, ResumeScheduleCommandPayload)
SCHEDULE_TRIGGER = declare(SchedulerCommands.SCHEDULE_TRIGGER, TriggerScheduleCommandPayload)
EXECUTE_IMMEDIATE = declare(SchedulerCommands.EXECUTE_IMMEDIATE, ExecuteImmediateCommandPayload)
SCHEDULE_CREATED = declare(SchedulerEvents.SCHEDULE_CREATED, ScheduleCreatedEventPayload)
SCHEDULE_UPDATED = declare(SchedulerEvents.SCHEDULE_UPDATED, ScheduleUpdatedEventPayload)
SCHEDULE_DELETED = declare(SchedulerEvents.SCHEDULE_DELETED, ScheduleDeletedEventPayload)
SCHEDULE_PAUSED = declare(SchedulerEvents.SCHEDULE_PAUSED, SchedulePausedEventPayload)
SCHEDULE_RESUMED = declare(SchedulerEvents.SCHEDULE_RESUMED, ScheduleResumedEventPayload)
SCHEDULE_TRIGGERED = declare(SchedulerEvents.SCHEDULE_TRIGGERED, ScheduleTriggeredEventPayload)
EXECUTION_STARTED = declare(SchedulerEvents.EXECUTION_STARTED, ExecutionStartedEventPayload)
EXECUTION_COMPLETED = declare(SchedulerEvents.EXECUTION_COMPLETED, ExecutionCompletedEventPayload)
EXECUTION_FAILED = declare(SchedulerEvents.EXECUTION_FAILED, ExecutionFailedEventPayload)
