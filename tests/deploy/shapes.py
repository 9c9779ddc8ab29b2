"""What Compose and Kubernetes accept of what we use: each name that is not listed here is refused, as a typo is.

Written from the Compose Specification and the Kubernetes API reference (1.32), as far as the files in deploy/ go: add a
name here only after looking it up there.
"""

from __future__ import annotations

from typing import Any

Shape = dict[str, Any]

TEXT: Shape = {"type": "string"}
NUMBER: Shape = {"type": "integer"}
YES: Shape = {"type": "boolean"}
TEXTS: Shape = {"type": "array", "items": TEXT}
NAMES: Shape = {"type": "object", "additionalProperties": TEXT}
ANY: Shape = {}
#: A span of time as Compose writes it.
SPAN: Shape = {"type": "string", "pattern": r"^(\d+(ms|s|m|h))+$"}
#: A quantity as Kubernetes writes it.
QUANTITY: Shape = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|k|Ki|Mi|Gi)?$"}
#: A name that Kubernetes accepts for an object.
DNS: Shape = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}


def some(*needed: str, **known: Any) -> Shape:
    """Return the shape of a mapping with these names; those in `needed` must be there. A name may end in `_`."""
    fields = {name.rstrip("_"): shape for name, shape in known.items()}
    return {"type": "object", "properties": fields, "required": list(needed), "additionalProperties": False}


def one(*values: Any) -> Shape:
    return {"enum": list(values)}


def many(shape: Shape) -> Shape:
    return {"type": "array", "items": shape, "minItems": 1}


def named(shape: Shape) -> Shape:
    return {"type": "object", "additionalProperties": shape}


# -- Compose ----------------------------------------------------------------------------------------------------------

_SERVICE = some(
    "image",
    build=some("context", context=TEXT, dockerfile=TEXT),
    cap_drop=TEXTS,
    command=TEXTS,
    depends_on=named(some("condition", condition=one("service_started", "service_healthy"))),
    deploy=some(replicas=NUMBER),
    env_file=TEXTS,
    environment=NAMES,
    healthcheck=some("test", test=TEXTS, interval=SPAN, timeout=SPAN, retries=NUMBER, start_period=SPAN),
    hostname=TEXT,
    image=TEXT,
    init=YES,
    logging=some("driver", driver=TEXT, options=NAMES),
    networks=TEXTS,
    ports=TEXTS,
    profiles=TEXTS,
    read_only=YES,
    restart=one("no", "always", "on-failure", "unless-stopped"),
    secrets=TEXTS,
    security_opt=TEXTS,
    stop_grace_period=SPAN,
    tmpfs=TEXTS,
    user=TEXT,
    volumes=TEXTS,
    working_dir=TEXT,
)

COMPOSE: Shape = {
    "type": "object",
    "properties": {
        "name": DNS,
        "services": named(_SERVICE),
        "networks": named({"type": "null"}),
        "volumes": named({"type": "null"}),
        "secrets": named(some("file", file=TEXT)),
    },
    "required": ["name", "services"],
    "patternProperties": {"^x-": ANY},
    "additionalProperties": False,
}

# -- Kubernetes -------------------------------------------------------------------------------------------------------

_META = some("name", name=DNS, namespace=DNS, labels=NAMES)
_SELECTOR = some(matchLabels=NAMES)
_PORT = {"type": ["integer", "string"]}
_HANDLER = {"exec": some("command", command=TEXTS), "httpGet": some("path", "port", path=TEXT, port=_PORT)}
_PROBE = some(
    **_HANDLER, periodSeconds=NUMBER, timeoutSeconds=NUMBER, failureThreshold=NUMBER, initialDelaySeconds=NUMBER
)
_CONTAINER = some(
    "name",
    "image",
    "securityContext",
    "resources",
    name=DNS,
    image=TEXT,
    command=TEXTS,
    envFrom=many(some(configMapRef=some("name", name=DNS), secretRef=some("name", name=DNS))),
    env=many(some("name", "value", name=TEXT, value=TEXT)),
    ports=many(some("containerPort", name=DNS, containerPort=NUMBER)),
    securityContext=some(
        allowPrivilegeEscalation=one(False), readOnlyRootFilesystem=YES, capabilities=some(drop=TEXTS)
    ),
    resources=some("requests", "limits", requests=named(QUANTITY), limits=named(QUANTITY)),
    volumeMounts=many(some("name", "mountPath", name=DNS, mountPath=TEXT)),
    startupProbe=_PROBE,
    readinessProbe=_PROBE,
    livenessProbe=_PROBE,
    lifecycle=some(preStop=some(**_HANDLER)),
)
_POD = some(
    "metadata",
    "spec",
    metadata=some("labels", labels=NAMES),
    spec=some(
        "containers",
        automountServiceAccountToken=YES,
        terminationGracePeriodSeconds=NUMBER,
        securityContext=some(
            runAsNonRoot=one(True), runAsUser=NUMBER, runAsGroup=NUMBER, seccompProfile=some("type", type=TEXT)
        ),
        topologySpreadConstraints=many(
            some(
                maxSkew=NUMBER,
                topologyKey=TEXT,
                whenUnsatisfiable=one("ScheduleAnyway", "DoNotSchedule"),
                labelSelector=_SELECTOR,
            )
        ),
        containers=many(_CONTAINER),
        volumes=many(some("name", name=DNS, emptyDir=some(sizeLimit=QUANTITY))),
    ),
)
_UPDATE = {"type": ["integer", "string"]}
_PEER = many(some(podSelector=_SELECTOR, namespaceSelector=_SELECTOR))
_PORTS = many(some(protocol=one("TCP", "UDP"), port=NUMBER))
_POLICY = many(some(type=one("Percent", "Pods"), value=NUMBER, periodSeconds=NUMBER))


def _object(version: str, kind: str, **parts: Shape) -> Shape:
    return some("metadata", *parts, apiVersion=one(version), kind=one(kind), metadata=_META, **parts)


#: By kind, the shape of an object.
KUBERNETES: dict[str, Shape] = {
    "ConfigMap": _object("v1", "ConfigMap", data=NAMES),
    "Secret": _object("v1", "Secret", stringData=NAMES),
    "Service": _object(
        "v1", "Service", spec=some(selector=NAMES, ports=many(some(name=DNS, port=NUMBER, targetPort=_PORT)))
    ),
    "Deployment": _object(
        "apps/v1",
        "Deployment",
        spec=some(
            "selector",
            "template",
            replicas=NUMBER,
            revisionHistoryLimit=NUMBER,
            selector=_SELECTOR,
            strategy=some(type=one("RollingUpdate"), rollingUpdate=some(maxSurge=_UPDATE, maxUnavailable=_UPDATE)),
            template=_POD,
        ),
    ),
    "PodDisruptionBudget": _object(
        "policy/v1", "PodDisruptionBudget", spec=some("selector", maxUnavailable=NUMBER, selector=_SELECTOR)
    ),
    "HorizontalPodAutoscaler": _object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        spec=some(
            "scaleTargetRef",
            "maxReplicas",
            scaleTargetRef=some(apiVersion=TEXT, kind=TEXT, name=DNS),
            minReplicas=NUMBER,
            maxReplicas=NUMBER,
            metrics=many(
                some(
                    type=one("External"),
                    external=some(
                        metric=some(name=TEXT, selector=_SELECTOR),
                        target=some(type=one("Value", "AverageValue"), value=TEXT, averageValue=TEXT),
                    ),
                )
            ),
            behavior=some(
                scaleUp=some(stabilizationWindowSeconds=NUMBER, policies=_POLICY),
                scaleDown=some(stabilizationWindowSeconds=NUMBER, policies=_POLICY),
            ),
        ),
    ),
    "NetworkPolicy": _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        spec=some(
            "podSelector",
            podSelector=_SELECTOR,
            policyTypes=many(one("Ingress", "Egress")),
            ingress=many(some(**{"from": _PEER, "ports": _PORTS})),
            egress=many(some(to=_PEER, ports=_PORTS)),
        ),
    ),
    "Kustomization": some(
        "resources",
        apiVersion=one("kustomize.config.k8s.io/v1beta1"),
        kind=one("Kustomization"),
        namespace=DNS,
        labels=many(some(pairs=NAMES)),
        resources=TEXTS,
        images=many(some("name", name=TEXT, newName=TEXT, newTag=TEXT)),
    ),
}
