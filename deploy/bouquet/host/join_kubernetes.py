"""The Kubernetes manifest of SuperNodes that join from a cluster elsewhere: for each a Secret and a Deployment.

Its pods fit the Pod Security Standard *restricted*, as those of the chart do. A Deployment replaces a pod whose machine
is lost; the SuperLink admits only one process with a node's key at a time.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bouquet.contract.keys import JOINED_NUMBER, key_path
from bouquet.contract.tls_files import CA
from bouquet.host.joining_node import DATA, PROBE, JoiningNode

USER = 49999


def manifest(nodes: Sequence[JoiningNode]) -> str:
    """Return the manifest: JSON documents, which are YAML, too."""
    objects = [made for node in nodes for made in (_secret(node), _deployment(node))]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2)


def _metadata(node: JoiningNode) -> dict[str, Any]:
    return {"name": f"bouquet-{node.name}", "labels": _labels(node)}


def _labels(node: JoiningNode) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "bouquet",
        "app.kubernetes.io/component": "joined-supernode",
        "app.kubernetes.io/instance": node.name,
    }


def _secret(node: JoiningNode) -> dict[str, Any]:
    files = {CA: node.root_certificate, key_path(Path(), JOINED_NUMBER).name: node.key}
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(node), "type": "Opaque", "data": data}


def _deployment(node: JoiningNode) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(node),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # two pods with one key would compete
            "selector": {"matchLabels": _labels(node)},
            "template": {"metadata": {"labels": _labels(node)}, "spec": _pod(node)},
        },
    }


def _pod(node: JoiningNode) -> dict[str, Any]:
    secret = {"secretName": f"bouquet-{node.name}", "defaultMode": 0o440}
    memory: dict[str, Any] = {"emptyDir": {"medium": "Memory"}}
    volumes = {
        "/tmp": {"emptyDir": {}},  # noqa: S108  in the pod
        "/run/bouquet": memory,
        f"{DATA}/leases": memory,
        f"{DATA}/cache": {"emptyDir": {}},
        f"{DATA}/identities": {"secret": secret},
    }
    names = {path: path.rpartition("/")[2] for path in volumes}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "supernode",
                "image": node.image,
                "imagePullPolicy": "IfNotPresent",
                "env": [{"name": name, "value": value} for name, value in node.environment().items()],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {
                    "requests": {"cpu": "100m", "memory": "512Mi"},
                    "limits": {"cpu": "1", "memory": "2Gi"},
                },
                "readinessProbe": {"exec": {"command": [*PROBE, "0"]}, "periodSeconds": 10, "timeoutSeconds": 5},
                "volumeMounts": [{"name": names[path], "mountPath": path} for path in volumes],
            }
        ],
        "volumes": [{"name": names[path], **source} for path, source in volumes.items()],
    }
