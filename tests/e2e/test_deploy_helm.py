"""What the Helm chart comes to fits the binary, and itself: read from `deploy/helm/rendered`, which `deploy/helm/render`
writes. That needs helm; where there is none, it shows by the chart's digest that nobody forgot to."""

import ipaddress
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

from broker import PATIENCE
from deployed import DEPLOY, ECHO, STOP_SECONDS, check_variables, digest, dockerfile, run_script, settings

CHART = DEPLOY / "helm/interflow"
RENDERED = DEPLOY / "helm/rendered"
HELM = os.environ.get("HELM", "helm")
VALUES = sorted(file.name.removesuffix("-values.yaml") for file in CHART.glob("ci/*-values.yaml"))
# What is known of a pod before it runs.
POD = {"POD_NAME": "example-interflow-logstore-2", "POD_IP": "10.1.2.3", "NODE_IP": "192.0.2.7"}
FIELDS = {
    "metadata.name", "status.podIP", "status.hostIP", "metadata.labels['topology.kubernetes.io/zone']",
}  # fmt: skip


def rendered(values):
    documents = [document for document in yaml.safe_load_all((RENDERED / f"{values}.yaml").read_text()) if document]
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents), "two of one name"
    return found


def of_kind(documents, kind):
    return [document for (known, _), document in documents.items() if known == kind]


def workloads(documents):
    return [document for kind in ("StatefulSet", "Deployment", "Job") for document in of_kind(documents, kind)]


def pod_of(workload):
    return workload["spec"]["template"]["spec"]


def selects(selector, workload):
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return selector.items() <= labels.items()


@pytest.mark.skipif(not shutil.which(HELM), reason="helm is not here")
def test_helm_renders_what_is_rendered(tmp_path):
    done = subprocess.run([DEPLOY / "helm/render", tmp_path], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for values in VALUES:
        assert (tmp_path / f"{values}.yaml").read_text() == (RENDERED / f"{values}.yaml").read_text(), f"deploy/helm/render: {values}"


def test_chart_was_rendered_as_it_is():
    assert (RENDERED / "digest").read_text().strip() == digest(CHART), "the chart has changed: run deploy/helm/render"
    assert {file.stem for file in RENDERED.glob("*.yaml")} == set(VALUES)


@pytest.mark.skipif(not shutil.which(HELM), reason="helm is not here")
@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "metadata.clusterFile.configMap"),
        ({"metadata.clusterFile.configMap": "a"}, "logstore.token"),
        ({"metadata.clusterFile.configMap": "a", "logstore.token.value": "short"}, "logstore.token"),
        ({"metadata.clusterFile.configMap": "a", "logstore.token.existingSecret": "b"}, "users.existingSecret"),
        ({"metadata.remote.address": "a:1", "logstore.token.existingSecret": "b"}, "metadata.remote.existingSecret"),
        (
            {"metadata.clusterFile.configMap": "a", "logstore.token.existingSecret": "b", "users.existingSecret": "c",
             "gateway.advertise.mode": "host", "gateway.advertise.host": "d"},
            "is for one gateway",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_told(values, told):
    flags = [f"--set={name}={value}" for name, value in values.items()]
    done = subprocess.run([HELM, "template", "x", CHART, "--kube-version", "1.33.0", *flags], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0 and told in done.stderr, done.stderr


def leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value and name != "resources":
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_value_is_used_and_every_used_value_is_there():
    known = set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    text = "".join(file.read_text() for file in (CHART / "templates").iterdir())
    used = set(re.findall(r"(?:\.Values|\$values)\.([\w.]+)", text))
    assert used == known


def commands(workload, folder):
    """What the workload's container starts: the arguments of each call."""
    container = pod_of(workload)["containers"][0]
    shell, option, script = container["command"]
    assert (shell, option) == ("bash", "-ec")
    (folder / "metadata").mkdir(exist_ok=True)
    (folder / "metadata/fdb.cluster").write_text("a:b@127.0.0.1:4500\n")
    (folder / "users").mkdir(exist_ok=True)
    (folder / "users/ann").write_text("s3cret")
    calls = folder / f"calls-{workload['kind']}"
    # A gateway goes on until it is ended; the others' input is of interest.
    interflow = f'{ECHO} >> {calls}; case "$1 $2" in "gateway ") sleep 60 & trap "kill $!" TERM; wait ;; user*) cat >> {calls}; echo >> {calls};; esac'
    done = run_script(folder, script, POD, shell="-ec", paths=("/etc/interflow", "/run/interflow"), interflow=interflow, **{"interflow-probe": ""})
    assert done.returncode == 0, done.stderr
    return calls.read_text().splitlines()


@pytest.mark.parametrize("values", VALUES)
def test_pods_start_what_the_binary_takes(values, tmp_path):
    documents = rendered(values)
    for workload in workloads(documents):
        pod, kind = pod_of(workload), workload["kind"]
        container = pod["containers"][0]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        variables = {entry["name"]: entry.get("value", "zone-1") for entry in container["env"]}
        given = {entry["name"] for entry in container["env"] if "valueFrom" in entry}
        assert {entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"] if "valueFrom" in entry} <= FIELDS
        assert given <= {*POD, "INTERFLOW_NODE__RACK"} and len(variables) == len(container["env"])
        lines = commands(workload, tmp_path)
        if kind == "Job":
            added = lines.index("user") - 1
            assert lines[added:] == ["interflow", "user", "add", "ann", "s3cret"]
            lines = lines[:added]
            assert lines == ["interflow", "gateway"]
        found = settings(lines, {**dockerfile()[0], **variables})
        check_variables(found, variables)
        for name, (value, source) in found.items():
            # Files are in volumes.
            if source.startswith(("variable", "flag")) and isinstance(value, str) and value.startswith("/") and name != "data_dir":
                assert str(pathlib.Path(value).parent) in mounts, f"{name} = {value}"
        development = values == "development"
        assert found["meta.store"][0] == ("remote:meta.default.svc:7070" if development else "fdb:/run/interflow/fdb.cluster")
        assert bool(found["meta.token_file"][0]) == development and mounts["/run/interflow"] == "run"
        assert found["logstore.token_file"][0] == "/etc/interflow/logstore/token"
        assert found["ports.admin"] == (8090, "default")
        name = workload["metadata"]["name"]
        ports = {port["name"]: port for port in container.get("ports", [])}
        domain = "messages.svc.cluster.local"
        if kind == "StatefulSet":
            first = {"most": 11}.get(values, 1)
            assert found["node.id"][0] == first + 2
            service = workload["spec"]["serviceName"]
            assert found["logstore.advertise"][0] == f"{POD['POD_NAME']}.{service}.{domain}:7071"
            assert POD["POD_NAME"] == f"{name}-2" and documents["Service", service]["spec"]["clusterIP"] == "None"
            assert found["logstore.listen"][0].endswith(":7071") and ports["logstore"]["containerPort"] == 7071
            (claim,) = workload["spec"]["volumeClaimTemplates"]
            # Not the volume's root, where a file system may keep things of its own.
            at = pathlib.Path(found["data_dir"][0])
            assert mounts[str(at.parent)] == claim["metadata"]["name"]
            assert found["node.rack"][0] == ("" if development else "zone-1")
            assert bool(found["logstore.tls_client_ca"][0]) == (values == "most")
            assert pod["terminationGracePeriodSeconds"] > STOP_SECONDS
        elif kind == "Deployment":
            service = documents["Service", f"{name}s"]
            assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
            advertised = {"least": f"10-1-2-3.{name}s.{domain}", "most": POD["NODE_IP"], "address": POD["POD_IP"], "development": "kafka.example.com"}
            assert found["advertise"][0] == advertised[values]
            assert not ipaddress.ip_address(found["listen"][0][0]).is_loopback
            assert found["allow_anonymous"][0] is development
            for port, entry in ports.items():
                if port != "metrics":
                    assert found[f"ports.{port}"][0] == entry["containerPort"]
                    assert entry.get("protocol", "TCP") == ("UDP" if port == "quic" else "TCP")
                    # Clients of the machine's address find the gateway at the port that they are told.
                    on_host = values == "most" and port in ("kafka", "kafkas")
                    assert entry.get("hostPort") == (entry["containerPort"] if on_host else None)
            clear, tls = {"mqtt", "ws", "kafka"}, {"mqtts", "wss", "quic", "kafkas"}
            assert ports.keys() == clear | (tls if found["tls.cert"][0] else set())
            wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
            assert pod["terminationGracePeriodSeconds"] > wait + 10
        else:
            # Nobody reaches the gateway that makes users.
            assert found["listen"][0] == [] and not ports


@pytest.mark.parametrize("values", VALUES)
def test_parts_fit_one_another(values):
    documents = rendered(values)
    secrets, configs = {name for kind, name in documents if kind == "Secret"}, {name for kind, name in documents if kind == "ConfigMap"}
    for workload in workloads(documents):
        pod, spec = pod_of(workload), workload["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == volumes.keys() | claims and len(volumes) == len(pod["volumes"])
        if workload["kind"] != "Job":
            assert selects(spec["selector"]["matchLabels"], workload)
        for volume in volumes.values():
            secret, config = volume.get("secret", {}).get("secretName"), volume.get("configMap", {}).get("name")
            # What begins with the release's name is the chart's own.
            assert not (secret or "").startswith("example-") or secret in secrets
            assert not (config or "").startswith("example-") or config in configs
        assert pod["enableServiceLinks"] is False and ("ServiceAccount", pod["serviceAccountName"]) in documents
        user = pod["securityContext"]["runAsUser"]
        assert f"USER {user}:{user}\n" in (DEPLOY / "Dockerfile").read_text() and pod["securityContext"]["fsGroup"] == user
        container = pod["containers"][0]
        if workload["kind"] != "Job":
            paths = {kind: container[f"{kind}Probe"]["exec"]["command"] for kind in ("startup", "readiness", "liveness")}
            ready, well = ["interflow-probe", "/readyz"], ["interflow-probe", "/healthz"]
            assert paths == {"startup": ready, "readiness": ready, "liveness": well}
        for each in pod["containers"]:
            context = each["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}

    served = [workload for workload in workloads(documents) if workload["kind"] != "Job"]
    for service in of_kind(documents, "Service"):
        behind = [workload for workload in served if selects(service["spec"]["selector"], workload)]
        assert behind, service["metadata"]["name"]
        for workload in behind:
            ports = {port["name"]: port for container in pod_of(workload)["containers"] for port in container.get("ports", [])}
            for port in service["spec"]["ports"]:
                assert ports[port["targetPort"]]["containerPort"] == port["port"]
                assert ports[port["targetPort"]].get("protocol") == port.get("protocol")
    for budget in of_kind(documents, "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert [selects(budget["spec"]["selector"]["matchLabels"], workload) for workload in served].count(True) == 1
    (deployment,) = of_kind(documents, "Deployment")
    scalers = of_kind(documents, "HorizontalPodAutoscaler")
    # Who scales says how many.
    assert bool(scalers) != ("replicas" in deployment["spec"])
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    (stores,) = of_kind(documents, "StatefulSet")
    apart = pod_of(stores).get("affinity", {}).get("podAntiAffinity", {})
    for term in apart.get("requiredDuringSchedulingIgnoredDuringExecution", []):
        assert selects(term["labelSelector"]["matchLabels"], stores) and not selects(term["labelSelector"]["matchLabels"], deployment)
    for policy in of_kind(documents, "NetworkPolicy"):
        (behind,) = [workload for workload in served if selects(policy["spec"]["podSelector"]["matchLabels"], workload)]
        ports = {port["name"] for container in pod_of(behind)["containers"] for port in container["ports"]}
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == ports
    for monitor in of_kind(documents, "ServiceMonitor"):
        (service,) = [
            service for service in of_kind(documents, "Service")
            if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ]  # fmt: skip
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
