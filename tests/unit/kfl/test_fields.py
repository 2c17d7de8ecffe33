import pytest

import kfl
from kfl.fields import CATALOGUE, NAMES
from kfl.parse import parse
from kfl.words import WORDS
from recordings.schema import ENTRIES

# Of each group of Kubeshark's reference of KFL2, in the order in which it has them.
KFL2 = """
src.ip dst.ip src.port dst.port id node_id index stream timestamp elapsed_time worker conn_id
flow_id has_pcap capture_source capture_backend capture_source_code capture method url path
status_code http_version query_string request.headers response.headers request.cookies
response.cookies request_headers_size request_body_size response_headers_size response_body_size
dns_questions dns_answers dns_question_types dns_request dns_response dns_request_length
dns_response_length dns_total_size tls_summary tls_info tls_request_size tls_response_size
tls_total_size tcp_method tcp_payload tcp_error_type tcp_error_message udp_length udp_checksum
udp_payload sctp_checksum sctp_chunk_type sctp_length icmp_type icmp_version icmp_length ws_opcode
ws_request ws_response ws_request_payload_data ws_request_payload_length
ws_response_payload_length redis_type redis_command redis_key redis_request_size
redis_response_size redis_total_size kafka_api_key kafka_api_key_name kafka_client_id kafka_size
kafka_request kafka_response kafka_request_summary kafka_request_size kafka_response_size
amqp_method amqp_summary amqp_request amqp_response amqp_request_length amqp_response_length
amqp_total_size ldap_type ldap_summary ldap_request ldap_response ldap_request_length
ldap_response_length ldap_total_size radius_code radius_code_name radius_request radius_response
radius_request_authenticator radius_request_length radius_response_length radius_total_size
diameter_method diameter_summary diameter_request diameter_response diameter_request_length
diameter_response_length diameter_total_size mongodb_command mongodb_database mongodb_collection
mongodb_opcode mongodb_request_size mongodb_response_size mongodb_total_size mongodb_success
mongodb_error_code mongodb_error_message mongodb_error_code_name mysql_command mysql_query
mysql_database mysql_statement_id mysql_request_size mysql_response_size mysql_total_size
mysql_success mysql_error_code mysql_error_message postgresql_command postgresql_query
postgresql_database postgresql_user postgresql_request_size postgresql_response_size
postgresql_total_size postgresql_success postgresql_error_code postgresql_error_message
grpc_method grpc_status conn_state conn_local_pkts conn_local_bytes conn_remote_pkts
conn_remote_bytes conn_l7_detected conn_group_id flow_state flow_local_pkts flow_local_bytes
flow_remote_pkts flow_remote_bytes flow_local_pps flow_local_bps flow_remote_pps flow_remote_bps
flow_l7_detected flow_group_id src.pod.name src.pod.namespace dst.pod.name dst.pod.namespace
src.service.name src.service.namespace dst.service.name dst.service.namespace src.name dst.name
src.namespace dst.namespace namespaces pods services local_labels local_annotations remote_labels
remote_annotations node node_name node_ip local_node_name remote_node_name local_process_name
remote_process_name src.dns dst.dns dns_resolutions local_resolution_status
remote_resolution_status
"""

# Fields of requests and responses, by the word of their protocol.
MESSAGES = {
    "http": "request.method request.pathSegments request.queryString response.status response.body",
    "grpc": "request.grpcService request.grpcMethod response.grpcStatus response.grpcMessage",
    "gql": "request.gqlOperationType request.gqlOperationName request.gqlFields response.gqlErrors",
    "ws": "request.opcode response.opcode response.body",
    "dns": "request.opCode request.questions response.code response.answers response.additionals",
    "redis": "request.type request.command request.key response.value request.keyword",
    "kafka": "request.apiKeyName request.clientID response.correlationID request.payload",
    "amqp": "request.exchange request.routingKey request.mandatory request.properties",
    "tls": "request.sni request.ja4 response.cipherSuite response.certificates",
    "postgresql": "request.command request.query response.status response.error response.rows",
    "mysql": "request.query response.affected",
    "mongodb": "request.collection response.error",
    "ldap": "request.type response.resultCode",
    "radius": "request.codeName response.authenticator",
    "diameter": "request.commandCode response.avps",
    "icmp": "request.type request.sequence",
    "sctp": "request.chunkType",
    "tcp_conn": "request.state response.bytes",
}


@pytest.mark.parametrize("name", KFL2.split())
def test_filters_of_kfl2_can_be_compiled(name):
    kfl.compile(f"{name} == 1")
    kfl.compile(f'redact("request.body") and not ({name} == "x")')


@pytest.mark.parametrize(
    ("word", "name"), [(word, name) for word, names in MESSAGES.items() for name in names.split()]
)
def test_messages_of_every_protocol_are_catalogued(word, name):
    assert word in NAMES[name].protocols


@pytest.mark.parametrize("field", CATALOGUE, ids=lambda field: field.name)
def test_every_field_is_whole(field):
    assert field.meaning
    assert field.type in ("text", "number", "bool", "list", "map", "any")
    assert {field.guard, *field.protocols} <= {"", *WORDS}
    assert field.column is None or field.column in {*ENTRIES.names, "record"}
    for path in field.paths:
        assert parse(path).tree
    for name in (field.name, *field.aliases):
        assert NAMES[name] is field
        found = kfl.check(name)
        assert not [diagnostic for diagnostic in found if diagnostic.is_error]
        assert bool(field.absent) is any("No entry has" in d.message for d in found)


def test_names_are_given_once():
    names = [name for field in CATALOGUE for name in (field.name, *field.aliases)]
    assert len(names) == len(set(names))
    assert not {name for name in names if name in WORDS} - {"tls"}
