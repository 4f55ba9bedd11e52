"""Tools on contracts: the lock, what breaks whom, AsyncAPI, and who speaks and hears what.

Each is loaded when it is asked for; a running service needs `Reader` alone.
"""

from typing import TYPE_CHECKING

from shared._lazy import lazy_names

if TYPE_CHECKING:
    from shared.contracts.asyncapi import (
        asyncapi_document,
    )
    from shared.contracts.consumer_metadata import (
        Impact,
        Reader,
        Verdict,
    )
    from shared.contracts.lock import (
        ChangeKind,
        ContractChange,
        ContractLock,
        LockError,
        compare_contracts,
    )
    from shared.contracts.schema_diff import (
        Break,
        find_breaks,
    )
    from shared.contracts.table import (
        ContractRow,
        ContractTable,
        describe,
    )

__all__ = [
    "Break",
    "ChangeKind",
    "ContractChange",
    "ContractLock",
    "ContractRow",
    "ContractTable",
    "Impact",
    "LockError",
    "Reader",
    "Verdict",
    "asyncapi_document",
    "compare_contracts",
    "describe",
    "find_breaks",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Break": "shared.contracts.schema_diff",
        "ContractChange": "shared.contracts.lock",
        "ChangeKind": "shared.contracts.lock",
        "ContractLock": "shared.contracts.lock",
        "ContractRow": "shared.contracts.table",
        "ContractTable": "shared.contracts.table",
        "Impact": "shared.contracts.consumer_metadata",
        "LockError": "shared.contracts.lock",
        "Reader": "shared.contracts.consumer_metadata",
        "Verdict": "shared.contracts.consumer_metadata",
        "asyncapi_document": "shared.contracts.asyncapi",
        "compare_contracts": "shared.contracts.lock",
        "describe": "shared.contracts.table",
        "find_breaks": "shared.contracts.schema_diff",
    },
)
