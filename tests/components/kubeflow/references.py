"""What Kubeflow gives a task: artifacts, as references."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reference:
    """An artifact of Kubeflow."""

    path: str
    metadata: dict[str, Any] = field(default_factory=dict)
