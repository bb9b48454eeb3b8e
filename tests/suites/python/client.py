"""A client generated from the .proto files: does over mTLS what the operator's command does.

usage: client.py reflection|work PROTO_FOLDER GENERATED_FOLDER CREDENTIALS SERVER...

Nothing of Supercloud but its .proto files and one credentials file (CA, certificate and key in PEM) is used. It ends with an
assertion's message and a code other than 0 as soon as something is not as it should be.
"""

import re
import sys
import time
import uuid
from pathlib import Path

import grpc
from grpc_tools import protoc

SERVER_NAME = "scheduler.supercloud.internal"  # what every node's certificate bears
PATIENCE = 60  # seconds until what was asked must have come about
BOROUGH, WORKLOAD = "haringey", "python-web"


def generate(protos: Path, generated: Path) -> None:
    files = sorted(str(path) for path in (protos / "supercloud" / "v1").glob("*.proto"))
    code = protoc.main(["protoc", f"-I{protos}", f"--python_out={generated}", f"--grpc_python_out={generated}", *files])
    assert code == 0, "the client could not be generated"
    sys.path.insert(0, str(generated))


def open_channel(credentials: Path, server: str) -> grpc.Channel:
    blocks = re.findall(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", credentials.read_text(), re.S)
    pem = [f"-----BEGIN {label}-----{body}-----END {label}-----\n" for label, body in blocks]
    # The file holds two certificates, ours and the authority's; offering both as roots and as chain does no harm.
    certificates = "".join(block for block in pem if "PRIVATE KEY" not in block).encode()
    (key,) = (block.encode() for block in pem if "PRIVATE KEY" in block)
    secured = grpc.ssl_channel_credentials(certificates, key, certificates)
    return grpc.secure_channel(server, secured, [("grpc.ssl_target_name_override", SERVER_NAME)])


def until(what, look):
    """Polls until `look` gives something."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.1)


def request_id() -> str:
    return uuid.uuid4().hex


def reflection(channel) -> None:
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    database = ProtoReflectionDescriptorDatabase(channel)
    services = sorted(database.get_services())
    pool = DescriptorPool(database)
    for name in services:
        print(name)
        if name.startswith("supercloud."):
            service = pool.FindServiceByName(name)
            assert service.methods, f"{name} has no methods"
    # The standard health service, by its descriptor from reflection alone.
    from google.protobuf import message_factory

    wanted = message_factory.GetMessageClass(pool.FindMessageTypeByName("grpc.health.v1.HealthCheckRequest"))
    given = message_factory.GetMessageClass(pool.FindMessageTypeByName("grpc.health.v1.HealthCheckResponse"))
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=wanted.SerializeToString,
        response_deserializer=given.FromString,
    )
    answer = until("the node is ready", lambda: serving(check, wanted))
    print("health", answer)


def serving(check, wanted):
    answer = check(wanted(), timeout=10)
    name = answer.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[answer.status].name
    return name if name == "SERVING" else None


class Client:
    def __init__(self, channel):
        from supercloud.v1 import borough_pb2_grpc, event_pb2_grpc, host_pb2_grpc, instance_pb2_grpc
        from supercloud.v1 import scheduler_pb2_grpc, workload_pb2_grpc

        self.boroughs = borough_pb2_grpc.BoroughServiceStub(channel)
        self.events = event_pb2_grpc.EventServiceStub(channel)
        self.hosts = host_pb2_grpc.HostServiceStub(channel)
        self.instances = instance_pb2_grpc.InstanceServiceStub(channel)
        self.scheduler = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        self.workloads = workload_pb2_grpc.WorkloadServiceStub(channel)


def spec(count: int, mode: str = "live", cpu: int = 50):
    from supercloud.v1 import spec_pb2

    wanted = spec_pb2.WorkloadSpec(workload=WORKLOAD, borough=BOROUGH, kind=spec_pb2.WORKLOAD_KIND_SERVICE, count=count)
    wanted.stop_grace_ms = 1000
    task = wanted.tasks.add(name="main")
    task.container.image = "supercloud/hello:1"
    task.container.command.extend(["/bin/sh", "-c", "echo hello from python; exec sleep 1000"])
    task.container.env["MODE"] = mode
    wanted.resources.cpu_millis = cpu
    wanted.resources.memory_bytes = 16 << 20
    return wanted


def refused(call, code) -> grpc.RpcError:
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"expected {code}, found {error}"
        return error
    raise AssertionError(f"expected {code}, and it was done")


def borough(client) -> None:
    from supercloud.v1 import borough_pb2

    made = borough_pb2.CreateBoroughRequest(request_id=request_id(), name=BOROUGH, title="Haringey")
    first, again = client.boroughs.Create(made), client.boroughs.Create(made)
    assert first.index == again.index, "the same request is done once"
    other = borough_pb2.CreateBoroughRequest(request_id=request_id(), name=BOROUGH)
    refused(lambda: client.boroughs.Create(other), grpc.StatusCode.ALREADY_EXISTS)
    names = [one.name for one in client.boroughs.List(borough_pb2.ListBoroughsRequest()).boroughs]
    assert BOROUGH in names and names == sorted(names), names
    assert client.boroughs.Get(borough_pb2.GetBoroughRequest(name=BOROUGH)).borough.title == "Haringey"


def problems(client) -> None:
    """A refusal carries every problem in a form that a program can use."""
    from supercloud.v1 import error_pb2, workload_pb2

    bad = spec(1)
    bad.count, bad.tasks[0].container.image, bad.resources.memory_bytes = 1_000_000, "", 0
    request = workload_pb2.ApplyWorkloadRequest(request_id=request_id(), spec=bad)
    error = refused(lambda: client.workloads.Apply(request), grpc.StatusCode.INVALID_ARGUMENT)
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    found = error_pb2.ErrorDetails()
    found.ParseFromString(details)
    assert len(found.problems) >= 2, found
    assert all(one.path and one.expected and one.found for one in found.problems), found
    assert "count" in [one.path for one in found.problems], found


def workload(client) -> None:
    from supercloud.v1 import instance_pb2, workload_pb2

    planned = client.workloads.Plan(workload_pb2.PlanRequest(specs=[spec(1)])).plans[0]
    assert planned.change == workload_pb2.APPLY_CHANGE_CREATED and len(planned.placements) == 1, planned
    applied = client.workloads.Apply(workload_pb2.ApplyWorkloadRequest(request_id=request_id(), spec=spec(1)))
    assert applied.change == workload_pb2.APPLY_CHANGE_CREATED and applied.workload.revision == 1, applied

    seen = []
    watch = workload_pb2.WatchWorkloadRequest(borough=BOROUGH, workload=WORKLOAD, after_index=applied.index)
    for moment in client.workloads.Watch(watch, timeout=PATIENCE):
        seen.append(moment.index)
        if moment.workload.counts.running == 1:
            break
    assert seen == sorted(seen), f"a watch never goes back: {seen}"

    again = client.workloads.Apply(workload_pb2.ApplyWorkloadRequest(request_id=request_id(), spec=spec(1)))
    assert again.change == workload_pb2.APPLY_CHANGE_UNCHANGED, again
    stale = workload_pb2.ApplyWorkloadRequest(request_id=request_id(), spec=spec(1, "drill"), expect_revision=7)
    refused(lambda: client.workloads.Apply(stale), grpc.StatusCode.FAILED_PRECONDITION)
    scale = workload_pb2.ScaleWorkloadRequest(request_id=request_id(), borough=BOROUGH, workload=WORKLOAD, count=2)
    assert client.workloads.Scale(scale).before == 1
    get = workload_pb2.GetWorkloadRequest(borough=BOROUGH, workload=WORKLOAD)
    until("two run", lambda: client.workloads.Get(get).workload.counts.running == 2)
    history = workload_pb2.WorkloadHistoryRequest(borough=BOROUGH, workload=WORKLOAD)
    assert [one.revision for one in client.workloads.History(history).revisions] == [1]
    listed = client.workloads.List(workload_pb2.ListWorkloadsRequest(borough=BOROUGH)).workloads
    assert [one.spec.workload for one in listed] == [WORKLOAD]
    page = client.instances.List(instance_pb2.ListInstancesRequest(borough=BOROUGH, page_size=1))
    assert len(page.instances) == 1 and page.next_page_token, "one a page, and another page"
    rest = instance_pb2.ListInstancesRequest(borough=BOROUGH, page_size=1, page_token=page.next_page_token)
    assert client.instances.List(rest).instances[0].id != page.instances[0].id


def instance(client) -> None:
    from supercloud.v1 import instance_pb2

    one = client.instances.List(instance_pb2.ListInstancesRequest(borough=BOROUGH)).instances[0]
    assert one.host == "h1" and one.state == instance_pb2.INSTANCE_STATE_RUNNING, one
    assert client.instances.Get(instance_pb2.GetInstanceRequest(id=one.id)).instance.id == one.id
    explained = client.instances.Explain(instance_pb2.ExplainRequest(id=one.id)).explanations[0]
    assert explained.host == "h1" and explained.summary, explained

    pieces = client.instances.Logs(instance_pb2.LogsRequest(instance=one.id), timeout=PATIENCE)
    text = b"".join(piece.data for piece in pieces)
    assert b"hello from python" in text, text

    start = instance_pb2.ExecStart(instance=one.id, command=["sh", "-c", "cat; exit 5"])
    said = [
        instance_pb2.ExecRequest(start=start),
        instance_pb2.ExecRequest(stdin=b"to and fro"),
        instance_pb2.ExecRequest(stdin_end=True),
    ]
    answers = list(client.instances.Exec(iter(said), timeout=PATIENCE))
    assert b"".join(answer.stdout for answer in answers) == b"to and fro", answers
    assert answers[-1].exit_code == 5, answers


def estate(client) -> None:
    from supercloud.v1 import event_pb2, host_pb2, scheduler_pb2

    host = client.hosts.Get(host_pb2.GetHostRequest(name="h1"))
    assert host.host.state == host_pb2.HOST_STATE_READY and len(host.instances) == 2, host
    assert [one.name for one in client.hosts.List(host_pb2.ListHostsRequest()).hosts] == ["h1"]
    assert client.hosts.ListSites(host_pb2.ListSitesRequest()).sites[0].ready == 1
    nodes = client.scheduler.List(scheduler_pb2.ListNodesRequest())
    assert nodes.leader and len(nodes.nodes) == 1, nodes
    token = scheduler_pb2.CreateTokenRequest(
        request_id=request_id(), role=scheduler_pb2.TOKEN_ROLE_BOROUGH, name="eve", borough=BOROUGH
    )
    assert client.scheduler.CreateToken(token).token.startswith("sct1-")

    events = client.events.List(event_pb2.ListEventsRequest(borough=BOROUGH, workload=WORKLOAD)).events
    assert events and events[0].kind == "workload-applied", events
    watch = event_pb2.WatchEventsRequest(borough=BOROUGH, after_index=events[0].index - 1)
    for batch in client.events.Watch(watch, timeout=PATIENCE):
        assert batch.events[0].index == events[0].index, "a watch resumes where it was asked to"
        break


def stop(client) -> None:
    from supercloud.v1 import workload_pb2

    request = workload_pb2.StopWorkloadRequest(request_id=request_id(), borough=BOROUGH, workload=WORKLOAD, purge=True)
    assert client.workloads.Stop(request).stopping == 2
    get = workload_pb2.GetWorkloadRequest(borough=BOROUGH, workload=WORKLOAD)

    def is_gone():
        try:
            client.workloads.Get(get)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            return True
        return False

    until("it is stopped and forgotten", is_gone)


def main() -> None:
    part, protos, generated, credentials, server = sys.argv[1:6]
    generate(Path(protos), Path(generated))
    with open_channel(Path(credentials), server) as channel:
        if part == "reflection":
            reflection(channel)
            return
        client = Client(channel)
        for step in (borough, problems, workload, instance, estate, stop):
            step(client)
            print(step.__name__, "done")
    print("all done")


main()
