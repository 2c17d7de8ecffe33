"""Names of what LDAP writes as numbers and OIDs. Used by `messages`, `results` and `filters`."""

from __future__ import annotations

# fmt: off
MESSAGE, CONTROLS = 0x30, 0xA0
BIND, BIND_RESPONSE, UNBIND = 0x60, 0x61, 0x42
SEARCH, SEARCH_ENTRY, SEARCH_DONE, SEARCH_REFERENCE = 0x63, 0x64, 0x65, 0x73
MODIFY, MODIFY_RESPONSE, ADD, ADD_RESPONSE = 0x66, 0x67, 0x68, 0x69
DELETE, DELETE_RESPONSE, MODIFY_DN, MODIFY_DN_RESPONSE = 0x4A, 0x6B, 0x6C, 0x6D
COMPARE, COMPARE_RESPONSE, ABANDON = 0x6E, 0x6F, 0x50
EXTENDED, EXTENDED_RESPONSE, INTERMEDIATE = 0x77, 0x78, 0x79

REQUESTS = {
    BIND: "bind", UNBIND: "unbind", SEARCH: "search", MODIFY: "modify", ADD: "add",
    DELETE: "delete", MODIFY_DN: "modifyDN", COMPARE: "compare", ABANDON: "abandon",
    EXTENDED: "extended",
}
"""RFC 4511, section 4; the tags are those of protocolOp in its appendix B."""
RESPONSES = {
    BIND_RESPONSE: "bindResponse", SEARCH_ENTRY: "searchResultEntry",
    SEARCH_DONE: "searchResultDone", SEARCH_REFERENCE: "searchResultReference",
    MODIFY_RESPONSE: "modifyResponse", ADD_RESPONSE: "addResponse",
    DELETE_RESPONSE: "deleteResponse", MODIFY_DN_RESPONSE: "modifyDNResponse",
    COMPARE_RESPONSE: "compareResponse", EXTENDED_RESPONSE: "extendedResponse",
    INTERMEDIATE: "intermediateResponse",
}
OPERATIONS = frozenset(REQUESTS) | frozenset(RESPONSES)
ANSWERED_BY = {
    BIND: BIND_RESPONSE, SEARCH: SEARCH_DONE, MODIFY: MODIFY_RESPONSE, ADD: ADD_RESPONSE,
    DELETE: DELETE_RESPONSE, MODIFY_DN: MODIFY_DN_RESPONSE, COMPARE: COMPARE_RESPONSE,
    EXTENDED: EXTENDED_RESPONSE,
}
"""Unbind and abandon have no answer."""

RESULTS = {
    0: "success", 1: "operationsError", 2: "protocolError", 3: "timeLimitExceeded",
    4: "sizeLimitExceeded", 5: "compareFalse", 6: "compareTrue", 7: "authMethodNotSupported",
    8: "strongerAuthRequired", 10: "referral", 11: "adminLimitExceeded",
    12: "unavailableCriticalExtension", 13: "confidentialityRequired", 14: "saslBindInProgress",
    16: "noSuchAttribute", 17: "undefinedAttributeType", 18: "inappropriateMatching",
    19: "constraintViolation", 20: "attributeOrValueExists", 21: "invalidAttributeSyntax",
    32: "noSuchObject", 33: "aliasProblem", 34: "invalidDNSyntax", 36: "aliasDereferencingProblem",
    48: "inappropriateAuthentication", 49: "invalidCredentials", 50: "insufficientAccessRights",
    51: "busy", 52: "unavailable", 53: "unwillingToPerform", 54: "loopDetect",
    64: "namingViolation", 65: "objectClassViolation", 66: "notAllowedOnNonLeaf",
    67: "notAllowedOnRDN", 68: "entryAlreadyExists", 69: "objectClassModsProhibited",
    71: "affectsMultipleDSAs", 80: "other", 113: "lcupResourcesExhausted",
    114: "lcupSecurityViolation", 115: "lcupInvalidData", 116: "lcupUnsupportedScheme",
    117: "lcupReloadRequired", 118: "canceled", 119: "noSuchOperation", 120: "tooLate",
    121: "cannotCancel", 122: "assertionFailed", 123: "authorizationDenied",
    4096: "e-syncRefreshRequired",
}
"""RFC 4511, appendix A; the rest by https://www.iana.org/assignments/ldap-parameters."""

SCOPES = {0: "baseObject", 1: "singleLevel", 2: "wholeSubtree", 3: "subordinateSubtree"}
ALIASES = {
    0: "neverDerefAliases", 1: "derefInSearching", 2: "derefFindingBaseObj", 3: "derefAlways",
}
CHANGES = {0: "add", 1: "delete", 2: "replace", 3: "increment"}  # the last: RFC 4525

START_TLS = "1.3.6.1.4.1.1466.20037"
PASSWORD_MODIFY = "1.3.6.1.4.1.4203.1.11.1"  # noqa: S105
OIDS = {
    START_TLS: "StartTLS", PASSWORD_MODIFY: "Password Modify",
    "1.3.6.1.4.1.1466.20036": "Notice of Disconnection",
    "1.3.6.1.4.1.4203.1.11.3": "Who am I?", "1.3.6.1.1.8": "Cancel",
    "1.3.6.1.1.21.1": "Start Transaction", "1.3.6.1.1.21.3": "End Transaction",
    "1.3.6.1.1.21.4": "Aborted Transaction", "1.3.6.1.1.19": "Turn",
    "1.3.6.1.4.1.1466.101.119.1": "Dynamic Refresh",
    "1.2.840.113556.1.4.1781": "Fast Bind", "1.2.840.113556.1.4.2212": "Batch Request",
    "1.3.6.1.4.1.4203.1.9.1.4": "Sync Info",
    "2.16.840.1.113730.3.5.3": "Start Replication", "2.16.840.1.113730.3.5.5": "End Replication",
    "1.2.840.113556.1.4.319": "Paged Results", "1.2.840.113556.1.4.473": "Server Side Sort",
    "1.2.840.113556.1.4.474": "Server Side Sort Response",
    "2.16.840.1.113730.3.4.9": "Virtual List View",
    "2.16.840.1.113730.3.4.10": "Virtual List View Response",
    "2.16.840.1.113730.3.4.2": "ManageDsaIT", "2.16.840.1.113730.3.4.3": "Persistent Search",
    "2.16.840.1.113730.3.4.7": "Entry Change Notification",
    "2.16.840.1.113730.3.4.4": "Password Expired", "2.16.840.1.113730.3.4.5": "Password Expiring",
    "2.16.840.1.113730.3.4.18": "Proxied Authorization",
    "2.16.840.1.113730.3.4.15": "Authorization Identity Response",
    "2.16.840.1.113730.3.4.16": "Authorization Identity Request",
    "1.3.6.1.4.1.42.2.27.8.5.1": "Password Policy", "1.3.6.1.4.1.4203.1.10.1": "Subentries",
    "1.3.6.1.4.1.4203.1.9.1.1": "Sync Request", "1.3.6.1.4.1.4203.1.9.1.2": "Sync State",
    "1.3.6.1.4.1.4203.1.9.1.3": "Sync Done", "1.3.6.1.1.12": "Assertion",
    "1.3.6.1.1.13.1": "Pre-Read", "1.3.6.1.1.13.2": "Post-Read",
    "1.3.6.1.1.22": "Don't Use Copy", "1.3.6.1.4.1.4203.666.5.12": "Relax Rules",
    "1.2.826.0.1.3344810.2.3": "Matched Values",
    "1.2.840.113556.1.4.417": "Show Deleted", "1.2.840.113556.1.4.521": "Cross-Domain Move Target",
    "1.2.840.113556.1.4.528": "Notification", "1.2.840.113556.1.4.529": "Extended DN",
    "1.2.840.113556.1.4.619": "Lazy Commit", "1.2.840.113556.1.4.801": "Security Descriptor Flags",
    "1.2.840.113556.1.4.805": "Tree Delete", "1.2.840.113556.1.4.841": "Directory Sync",
    "1.2.840.113556.1.4.1338": "Verify Name", "1.2.840.113556.1.4.1339": "Domain Scope",
    "1.2.840.113556.1.4.1340": "Search Options", "1.2.840.113556.1.4.1413": "Permissive Modify",
    "1.2.840.113556.1.4.1504": "Attribute Scoped Query",
    "1.2.840.113556.1.4.2064": "Show Recycled", "1.2.840.113556.1.4.2065": "Show Deactivated Link",
}
"""Extended operations and controls: RFC 2891, 3062, 3829, 3909, 4370, 4511, 4527, 4528, 4531, 4532,
4533, 5805, 6171; draft-behera-ldap-password-policy; MS-ADTS, sections 3.1.1.3.4.1 and .2."""

SECRETS = frozenset({
    "userpassword", "unicodepwd", "dbcspwd", "authpassword", "ntpwdhistory", "lmpwdhistory",
    "pwdhistory", "passwordhistory", "sambantpassword", "sambalmpassword", "sambapasswordhistory",
    "krbprincipalkey", "krbextradata", "krbmkey", "ipanthash", "olcrootpw", "nsslapd-rootpw",
    "supplementalcredentials", "initialauthincoming", "initialauthoutgoing", "trustauthincoming",
    "trustauthoutgoing", "ms-mcs-admpwd", "mslaps-password", "mslaps-encryptedpassword",
    "msds-managedpassword", "goauthsecret", "oathsecret", "oathotptoken", "ipatokenotpkey",
    "radiussharedsecret", "clearpassword", "cleartextpassword", "2.5.4.35",
    "1.2.840.113556.1.4.90",
})
"""Attributes whose values are passwords, keys or hashes of them, in lower case."""
# fmt: on

REDACTED = "[redacted]"


def result_name(code: int) -> str:
    """Return the name of a result code."""
    return RESULTS.get(code, f"result {code}")


def is_secret(attribute: str) -> bool:
    """Whether the values of an attribute (its description, with options) must not be stored."""
    return attribute.partition(";")[0].lower() in SECRETS
