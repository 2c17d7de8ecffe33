"""Names of what RADIUS writes as numbers. Used by `attributes` and `exchange`.

Codes, attributes and values: https://www.iana.org/assignments/radius-types. The attributes are
those of RFC 2865 to 2869, 3162, 4072, 4372, 4675, 4818, 4849, 5176, 5447, 5580, 5607, 5904, 6519,
6572, 6677, 6911, 7055, 7155, 7268; Microsoft's of RFC 2548, 3GPP's of TS 29.061.
"""

# fmt: off
CODES = {
    1: "Access-Request", 2: "Access-Accept", 3: "Access-Reject", 4: "Accounting-Request",
    5: "Accounting-Response", 11: "Access-Challenge", 12: "Status-Server", 40: "Disconnect-Request",
    41: "Disconnect-ACK", 42: "Disconnect-NAK", 43: "CoA-Request", 44: "CoA-ACK", 45: "CoA-NAK",
    52: "Protocol-Error",
}
ANSWERS = {1: (2, 3, 11, 52), 4: (5, 52), 12: (2, 5, 3, 52), 40: (41, 42, 52), 43: (44, 45, 52)}
"""Codes that answer each request. RFC 2865, 2866, 5176, 5997, 7930."""

TEXTS = {
    1: "User-Name", 2: "User-Password", 11: "Filter-Id", 18: "Reply-Message",
    19: "Callback-Number", 20: "Callback-Id", 22: "Framed-Route", 30: "Called-Station-Id",
    31: "Calling-Station-Id", 32: "NAS-Identifier", 34: "Login-LAT-Service", 35: "Login-LAT-Node",
    39: "Framed-AppleTalk-Zone", 44: "Acct-Session-Id", 50: "Acct-Multi-Session-Id",
    58: "Egress-VLAN-Name", 63: "Login-LAT-Port", 66: "Tunnel-Client-Endpoint",
    67: "Tunnel-Server-Endpoint", 68: "Acct-Tunnel-Connection", 69: "Tunnel-Password",
    74: "ARAP-Security-Data", 77: "Connect-Info", 78: "Configuration-Token",
    81: "Tunnel-Private-Group-Id", 82: "Tunnel-Assignment-Id", 87: "NAS-Port-Id",
    88: "Framed-Pool", 90: "Tunnel-Client-Auth-Id", 91: "Tunnel-Server-Auth-Id",
    92: "NAS-Filter-Rule", 99: "Framed-IPv6-Route", 100: "Framed-IPv6-Pool", 126: "Operator-Name",
    130: "Extended-Location-Policy-Rules", 135: "Management-Policy-Id", 144: "DS-Lite-Tunnel-Name",
    146: "Service-Selection", 164: "GSS-Acceptor-Service-Name", 165: "GSS-Acceptor-Host-Name",
    166: "GSS-Acceptor-Service-Specifics", 167: "GSS-Acceptor-Realm-Name",
    171: "Delegated-IPv6-Prefix-Pool", 172: "Stateful-IPv6-Address-Pool",
    174: "Allowed-Called-Station-Id", 181: "WLAN-HESSID", 184: "WLAN-Venue-Name",
}
NUMBERS = {
    5: "NAS-Port", 6: "Service-Type", 7: "Framed-Protocol", 10: "Framed-Routing", 12: "Framed-MTU",
    13: "Framed-Compression", 15: "Login-Service", 16: "Login-TCP-Port", 27: "Session-Timeout",
    28: "Idle-Timeout", 29: "Termination-Action", 37: "Framed-AppleTalk-Link",
    38: "Framed-AppleTalk-Network", 40: "Acct-Status-Type", 41: "Acct-Delay-Time",
    42: "Acct-Input-Octets", 43: "Acct-Output-Octets", 45: "Acct-Authentic",
    46: "Acct-Session-Time", 47: "Acct-Input-Packets", 48: "Acct-Output-Packets",
    49: "Acct-Terminate-Cause", 51: "Acct-Link-Count", 52: "Acct-Input-Gigawords",
    53: "Acct-Output-Gigawords", 55: "Event-Timestamp", 56: "Egress-VLANID", 57: "Ingress-Filters",
    61: "NAS-Port-Type", 62: "Port-Limit", 64: "Tunnel-Type", 65: "Tunnel-Medium-Type",
    72: "ARAP-Zone-Access", 73: "ARAP-Security", 75: "Password-Retry", 76: "Prompt",
    83: "Tunnel-Preference", 85: "Acct-Interim-Interval", 86: "Acct-Tunnel-Packets-Lost",
    101: "Error-Cause", 124: "MIP6-Feature-Vector", 131: "Location-Capable",
    132: "Requested-Location-Info", 133: "Framed-Management",
    134: "Management-Transport-Protection", 136: "Management-Privilege-Level", 141: "PKM-SAID",
    163: "EAP-Lower-Layer", 177: "Mobility-Domain-Id", 178: "Preauth-Timeout",
    182: "WLAN-Venue-Info", 185: "WLAN-Reason-Code", 186: "WLAN-Pairwise-Cipher",
    187: "WLAN-Group-Cipher", 188: "WLAN-AKM-Suite", 189: "WLAN-Group-Mgmt-Cipher",
    190: "WLAN-RF-Band",
}
ADDRESSES = {
    4: "NAS-IP-Address", 8: "Framed-IP-Address", 9: "Framed-IP-Netmask", 14: "Login-IP-Host",
    23: "Framed-IPX-Network", 95: "NAS-IPv6-Address", 98: "Login-IPv6-Host",
    147: "PMIP6-Home-LMA-IPv6-Address", 148: "PMIP6-Visited-LMA-IPv6-Address",
    149: "PMIP6-Home-LMA-IPv4-Address", 150: "PMIP6-Visited-LMA-IPv4-Address",
    157: "PMIP6-Home-DHCP4-Server-Address", 158: "PMIP6-Visited-DHCP4-Server-Address",
    159: "PMIP6-Home-DHCP6-Server-Address", 160: "PMIP6-Visited-DHCP6-Server-Address",
    161: "PMIP6-Home-IPv4-Gateway", 162: "PMIP6-Visited-IPv4-Gateway", 168: "Framed-IPv6-Address",
    169: "DNS-Server-IPv6-Address",
}
PREFIXES = {
    97: "Framed-IPv6-Prefix", 123: "Delegated-IPv6-Prefix", 151: "PMIP6-Home-HN-Prefix",
    152: "PMIP6-Visited-HN-Prefix", 170: "Route-IPv6-Information",
}
OCTETS = {
    3: "CHAP-Password", 24: "State", 25: "Class", 33: "Proxy-State", 36: "Login-LAT-Group",
    59: "User-Priority-Table", 60: "CHAP-Challenge", 70: "ARAP-Password", 71: "ARAP-Features",
    79: "EAP-Message", 80: "Message-Authenticator", 84: "ARAP-Challenge-Response",
    89: "Chargeable-User-Identity", 94: "Originating-Line-Info", 96: "Framed-Interface-Id",
    102: "EAP-Key-Name", 125: "MIP6-Home-Link-Prefix", 127: "Location-Information",
    128: "Location-Data", 129: "Basic-Location-Policy-Rules", 137: "PKM-SS-Cert",
    138: "PKM-CA-Cert", 139: "PKM-Config-Settings", 140: "PKM-Cryptosuite-List",
    142: "PKM-SA-Descriptor", 143: "PKM-Auth-Key", 145: "Mobile-Node-Identifier",
    153: "PMIP6-Home-Interface-ID", 154: "PMIP6-Visited-Interface-ID", 155: "PMIP6-Home-IPv4-HoA",
    156: "PMIP6-Visited-IPv4-HoA", 175: "EAP-Peer-Id", 176: "EAP-Server-Id",
    179: "Network-Id-Name", 180: "EAPoL-Announcement", 183: "WLAN-Venue-Language",
}
"""Attributes by what their values are; a number has 1 to 8 octets, an address 4 or 16."""
TAGGED = frozenset({64, 65, 66, 67, 69, 81, 82, 83, 90, 91})
"""Attributes that may begin with a tag, RFC 2868, section 3."""
VALUES = {
    6: {
        1: "Login", 2: "Framed", 3: "Callback-Login", 4: "Callback-Framed", 5: "Outbound",
        6: "Administrative", 7: "NAS-Prompt", 8: "Authenticate-Only", 9: "Callback-NAS-Prompt",
        10: "Call-Check", 11: "Callback-Administrative", 17: "Authorize-Only",
        18: "Framed-Management",
    },
    7: {
        1: "PPP", 2: "SLIP", 3: "ARAP", 4: "Gandalf-SLML", 5: "Xylogics-IPX-SLIP",
        6: "X.75-Synchronous",
    },
    10: {0: "None", 1: "Broadcast", 2: "Listen", 3: "Broadcast-Listen"},
    13: {0: "None", 1: "Van-Jacobson-TCP-IP", 2: "IPX-Header-Compression", 3: "Stac-LZS"},
    15: {
        0: "Telnet", 1: "Rlogin", 2: "TCP-Clear", 3: "PortMaster", 4: "LAT", 5: "X25-PAD",
        6: "X25-T3POS", 8: "TCP-Clear-Quiet",
    },
    29: {0: "Default", 1: "RADIUS-Request"},
    40: {
        1: "Start", 2: "Stop", 3: "Interim-Update", 7: "Accounting-On", 8: "Accounting-Off",
        9: "Tunnel-Start", 10: "Tunnel-Stop", 11: "Tunnel-Reject", 12: "Tunnel-Link-Start",
        13: "Tunnel-Link-Stop", 14: "Tunnel-Link-Reject", 15: "Failed",
    },
    45: {1: "RADIUS", 2: "Local", 3: "Remote", 4: "Diameter"},
    49: {
        1: "User-Request", 2: "Lost-Carrier", 3: "Lost-Service", 4: "Idle-Timeout",
        5: "Session-Timeout", 6: "Admin-Reset", 7: "Admin-Reboot", 8: "Port-Error", 9: "NAS-Error",
        10: "NAS-Request", 11: "NAS-Reboot", 12: "Port-Unneeded", 13: "Port-Preempted",
        14: "Port-Suspended", 15: "Service-Unavailable", 16: "Callback", 17: "User-Error",
        18: "Host-Request",
    },
    57: {1: "Enabled", 2: "Disabled"},
    61: {
        0: "Async", 1: "Sync", 2: "ISDN", 3: "ISDN-V120", 4: "ISDN-V110", 5: "Virtual", 6: "PIAFS",
        7: "HDLC-Clear-Channel", 8: "X.25", 9: "X.75", 10: "G.3-Fax", 11: "SDSL", 12: "ADSL-CAP",
        13: "ADSL-DMT", 14: "IDSL", 15: "Ethernet", 16: "xDSL", 17: "Cable", 18: "Wireless-Other",
        19: "Wireless-802.11",
    },
    64: {
        1: "PPTP", 2: "L2F", 3: "L2TP", 4: "ATMP", 5: "VTP", 6: "AH", 7: "IP", 8: "MIN-IP",
        9: "ESP", 10: "GRE", 11: "DVS", 12: "IP-in-IP", 13: "VLAN",
    },
    65: {
        1: "IP", 2: "IPv6", 3: "NSAP", 4: "HDLC", 5: "BBN-1822", 6: "IEEE-802", 7: "E.163",
        8: "E.164", 9: "F.69", 10: "X.121", 11: "IPX", 12: "Appletalk", 13: "DecNet-IV",
        14: "Banyan-Vines", 15: "E.164-NSAP",
    },
    72: {1: "Default-Zone", 2: "Zone-Filter-Inclusive", 4: "Zone-Filter-Exclusive"},
    76: {0: "No-Echo", 1: "Echo"},
    101: {
        201: "Residual-Context-Removed", 202: "Invalid-EAP-Packet", 401: "Unsupported-Attribute",
        402: "Missing-Attribute", 403: "NAS-Identification-Mismatch", 404: "Invalid-Request",
        405: "Unsupported-Service", 406: "Unsupported-Extension",
        501: "Administratively-Prohibited", 502: "Proxy-Request-Not-Routable",
        503: "Session-Context-Not-Found", 504: "Session-Context-Not-Removable",
        505: "Proxy-Processing-Error", 506: "Resources-Unavailable", 507: "Request-Initiated",
    },
    133: {
        1: "SNMP", 2: "Web-Based", 3: "Netconf", 4: "FTP", 5: "TFTP", 6: "SFTP", 7: "RCP",
        8: "SCP",
    },
    134: {
        1: "No-Protection", 2: "Integrity-Protection", 3: "Integrity-Confidentiality-Protection",
    },
    163: {
        1: "Wired-IEEE-802.1X", 2: "IEEE-802.1X-No-Preauth", 3: "IEEE-802.1X-Preauth",
        4: "IEEE-802.16e", 5: "IKEv2", 6: "PPP", 7: "PANA-No-Preauth", 8: "GSS-API",
        9: "PANA-Preauth",
    },
}
"""Names of the values of some numbers."""
MICROSOFT = {
    1: "MS-CHAP-Response", 2: "MS-CHAP-Error", 3: "MS-CHAP-CPW-1", 4: "MS-CHAP-CPW-2",
    5: "MS-CHAP-LM-Enc-PW", 6: "MS-CHAP-NT-Enc-PW", 7: "MS-MPPE-Encryption-Policy",
    8: "MS-MPPE-Encryption-Types", 9: "MS-RAS-Vendor", 10: "MS-CHAP-Domain",
    11: "MS-CHAP-Challenge", 12: "MS-CHAP-MPPE-Keys", 13: "MS-BAP-Usage",
    14: "MS-Link-Utilization-Threshold", 15: "MS-Link-Drop-Time-Limit", 16: "MS-MPPE-Send-Key",
    17: "MS-MPPE-Recv-Key", 18: "MS-RAS-Version", 19: "MS-Old-ARAP-Password",
    20: "MS-New-ARAP-Password", 21: "MS-ARAP-PW-Change-Reason", 22: "MS-Filter",
    23: "MS-Acct-Auth-Type", 24: "MS-Acct-EAP-Type", 25: "MS-CHAP2-Response",
    26: "MS-CHAP2-Success", 27: "MS-CHAP2-CPW", 28: "MS-Primary-DNS-Server",
    29: "MS-Secondary-DNS-Server", 30: "MS-Primary-NBNS-Server", 31: "MS-Secondary-NBNS-Server",
    34: "MS-RAS-Client-Name", 35: "MS-RAS-Client-Version", 36: "MS-Quarantine-IPFilter",
    37: "MS-Quarantine-Session-Timeout", 40: "MS-User-Security-Identity", 41: "MS-Identity-Type",
    42: "MS-Service-Class", 44: "MS-Quarantine-User-Class", 45: "MS-Quarantine-State",
    46: "MS-Quarantine-Grace-Time", 47: "MS-Network-Access-Server-Type", 48: "MS-AFW-Zone",
    49: "MS-AFW-Protection-Level", 50: "MS-Machine-Name", 51: "MS-IPv6-Filter",
    52: "MS-IPv4-Remediation-Servers", 53: "MS-IPv6-Remediation-Servers",
    54: "MS-RNAP-Not-Quarantine-Capable", 55: "MS-Quarantine-SOH", 56: "MS-RAS-Correlation",
    57: "MS-Extended-Quarantine-State", 58: "MS-HCAP-User-Groups",
    59: "MS-HCAP-Location-Group-Name", 60: "MS-HCAP-User-Name", 61: "MS-User-IPv4-Address",
    62: "MS-User-IPv6-Address", 63: "MS-TSG-Device-Redirection",
}
THREE_GPP = {
    1: "3GPP-IMSI", 2: "3GPP-Charging-ID", 3: "3GPP-PDP-Type", 4: "3GPP-Charging-Gateway-Address",
    5: "3GPP-GPRS-Negotiated-QoS-profile", 6: "3GPP-SGSN-Address", 7: "3GPP-GGSN-Address",
    8: "3GPP-IMSI-MCC-MNC", 9: "3GPP-GGSN-MCC-MNC", 10: "3GPP-NSAPI",
    11: "3GPP-Session-Stop-Indicator", 12: "3GPP-Selection-Mode",
    13: "3GPP-Charging-Characteristics", 14: "3GPP-Charging-Gateway-IPv6-Address",
    15: "3GPP-SGSN-IPv6-Address", 16: "3GPP-GGSN-IPv6-Address", 17: "3GPP-IPv6-DNS-Servers",
    18: "3GPP-SGSN-MCC-MNC", 19: "3GPP-Teardown-Indicator", 20: "3GPP-IMEISV", 21: "3GPP-RAT-Type",
    22: "3GPP-User-Location-Info", 23: "3GPP-MS-Time-Zone", 24: "3GPP-Camel-Charging-Info",
    25: "3GPP-Packet-Filter", 26: "3GPP-Negotiated-DSCP", 27: "3GPP-Allocate-IP-Type",
}
WISPR = {
    1: "WISPr-Location-ID", 2: "WISPr-Location-Name", 3: "WISPr-Logoff-URL",
    4: "WISPr-Redirection-URL", 5: "WISPr-Bandwidth-Min-Up", 6: "WISPr-Bandwidth-Min-Down",
    7: "WISPr-Bandwidth-Max-Up", 8: "WISPr-Bandwidth-Max-Down", 9: "WISPr-Session-Terminate-Time",
    10: "WISPr-Session-Terminate-End-Of-Day", 11: "WISPr-Billing-Class-Of-Service",
}
VENDORS = {
    9: "Cisco", 11: "HP", 171: "D-Link", 311: "Microsoft", 529: "Ascend", 1916: "Extreme",
    1991: "Foundry", 2011: "Huawei", 2352: "Redback", 2636: "Juniper", 3561: "Broadband-Forum",
    4491: "CableLabs", 4874: "ERX", 5535: "3GPP2", 6527: "Nokia-SR", 8164: "Starent",
    10415: "3GPP", 11344: "FreeRADIUS", 12356: "Fortinet", 14122: "WISPr", 14823: "Aruba",
    14988: "MikroTik", 24757: "WiMAX", 25053: "Ruckus", 25461: "Palo-Alto", 25506: "H3C",
    25622: "UKERNA",
}
"""https://www.iana.org/assignments/enterprise-numbers, in short."""
OF_VENDORS = {
    9: {1: "Cisco-AVPair"}, 311: MICROSOFT, 10415: THREE_GPP, 14122: WISPR,
}

SECRETS = frozenset({2, 3, 69, 70, 74, 78, 79, 80, 84, 102, 142, 143})
"""Passwords and keys, hidden ones and answers to challenges too, and what only proves a secret."""
MICROSOFT_SECRETS = frozenset({1, 3, 4, 5, 6, 11, 12, 16, 17, 19, 20, 25, 26, 27})

EAP_CODES = {1: "Request", 2: "Response", 3: "Success", 4: "Failure"}
EAP_TYPES = {
    1: "Identity", 2: "Notification", 3: "Nak", 4: "MD5-Challenge", 5: "OTP", 6: "GTC", 13: "TLS",
    17: "LEAP", 18: "SIM", 21: "TTLS", 23: "AKA", 25: "PEAP", 26: "MSCHAPv2", 29: "MSCHAPv2",
    43: "FAST", 47: "PSK", 50: "AKA'", 51: "GPSK", 52: "PWD", 53: "EKE", 55: "TEAP",
    254: "Expanded",
}
"""https://www.iana.org/assignments/eap-numbers"""
# fmt: on
