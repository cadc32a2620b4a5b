"""Uses every call of a SPIFFE Workload API through the Python package `spiffe` (gRPC C core), and says what it found.

Exit code 0: everything was as the standard says. Run it as a process that meets an entry.
"""

import argparse
import sys
import threading
import time

import grpc
from spiffe import JwtSource, WorkloadApiClient, X509Source
from spiffe._proto import workload_pb2, workload_pb2_grpc


def check(holds, fact):
    """Says a fact, or fails."""
    print(("ok      " if holds else "FAILED  ") + fact, flush=True)
    if not holds:
        sys.exit(1)


def refused(call, code, fact):
    try:
        answer = call()
        if hasattr(answer, "__next__"):
            next(answer)
    except grpc.RpcError as error:
        check(error.code() == code, f"{fact}: {error.code().name} ({error.details()})")
    else:
        check(False, fact)


def header_is_required(target):
    stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(grpc.insecure_channel(target))
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    x509 = workload_pb2.X509SVIDRequest()
    for name, metadata in {
        "no header": [],
        "`True`": [("workload.spiffe.io", "True")],
        "twice": [("workload.spiffe.io", "true")] * 2,
    }.items():
        refused(lambda m=metadata: stub.FetchX509SVID(x509, metadata=m, timeout=10), invalid, f"security header, {name}")
    good = [("workload.spiffe.io", "true")]
    jwt = workload_pb2.JWTSVIDRequest(audience=[])
    refused(lambda: stub.FetchJWTSVID(jwt, metadata=good, timeout=10), invalid, "a JWT-SVID without audience")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", help="unix:///PATH")
    parser.add_argument("--id", help="the SPIFFE ID expected first")
    parser.add_argument("--rotations", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="to wait for the rotations")
    arguments = parser.parse_args()

    header_is_required("unix:" + arguments.socket.removeprefix("unix://").removeprefix("unix:"))

    with WorkloadApiClient(arguments.socket) as client:
        svid = client.fetch_x509_svid(timeout=10)
        identity = svid.spiffe_id
        check(arguments.id in (None, str(identity)), f"X.509-SVID of {identity}")
        again = client.fetch_x509_svids(timeout=10)
        check(again[0].spiffe_id == identity, f"{len(again)} identities, the same one first")
        domain = identity.trust_domain
        bundle = client.fetch_x509_bundles(timeout=10).get_bundle_for_trust_domain(domain)
        check(bundle is not None and bundle.x509_authorities, "the X.509 bundle of the own trust domain")
        token = client.fetch_jwt_svid(audience={"db"}, subject=identity, timeout=10)
        check(token.spiffe_id == identity and "db" in token.audience, "a JWT-SVID for its audience")
        valid = client.validate_jwt_svid(token.token, "db", timeout=10)
        check(valid.spiffe_id == identity, "which the Workload API validates")
        try:
            client.validate_jwt_svid(token.token, "web", timeout=10)
            check(False, "and not for another audience")
        except Exception as error:  # The package wraps every status in a class of its own.
            check(True, f"and not for another audience: {error}")
        keys = client.fetch_jwt_bundles(timeout=10).get_bundle_for_trust_domain(domain)
        check(keys is not None and keys.jwt_authorities, "the JWT bundle of the own trust domain")

    with JwtSource(socket_path=arguments.socket, timeout_in_seconds=10) as source:
        check(source.fetch_svid(audience={"db"}).spiffe_id == identity, "JwtSource")

    renewed = threading.Semaphore(0)
    with X509Source(socket_path=arguments.socket, timeout_in_seconds=10) as source:
        check(source.get_x509_context().default_svid.spiffe_id == identity, "X509Source")
        source.subscribe_for_updates(renewed.release)
        serial = source.get_x509_context().default_svid.leaf.serial_number
        end = time.monotonic() + arguments.seconds
        done = 0
        while done < arguments.rotations:
            check(renewed.acquire(timeout=max(0.0, end - time.monotonic())), f"rotation {done + 1} came in time")
            if source.get_x509_context().default_svid.leaf.serial_number != serial:
                serial, done = source.get_x509_context().default_svid.leaf.serial_number, done + 1
        check(True, f"{done} rotations")


main()
