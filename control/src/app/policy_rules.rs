//! Neutron's default policy (role names admin, manager, member, reader, service), for the resources that exist here.
//! The text of each rule is Neutron's, so that an operator's policy.yaml can be compared with it.

/// Name and expression.
pub(super) const RULES: &[(&str, &str)] = &[
    ("context_is_admin", "role:admin"),
    ("service_api", "role:service"),
    ("owner", "project_id:%(project_id)s"),
    ("admin_or_owner", "rule:context_is_admin or rule:owner"),
    ("context_is_advsvc", "role:advsvc"),
    ("network_owner", "project_id:%(network:project_id)s"),
    ("admin_only", "rule:context_is_admin"),
    ("shared", "field:networks:shared=True"),
    ("sg_owner", "project_id:%(security_group:project_id)s"),
    ("create_agent", "rule:admin_only"),
    ("get_agent", "rule:admin_only"),
    ("update_agent", "rule:admin_only"),
    ("delete_agent", "rule:admin_only"),
    ("get_availability_zone", "role:reader"),
    (
        "create_floatingip",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "create_floatingip:floating_ip_address",
        "(rule:admin_only) or (role:manager and project_id:%(project_id)s)",
    ),
    (
        "create_floatingip:router_id",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "create_floatingip:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "get_floatingip",
        "(rule:admin_only) or (role:reader and project_id:%(project_id)s)",
    ),
    (
        "get_floatingip:tags",
        "(rule:admin_only) or (role:reader and project_id:%(project_id)s)",
    ),
    (
        "update_floatingip",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "update_floatingip:router_id",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "update_floatingip:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "delete_floatingip",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "delete_floatingip:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    ("external", "field:networks:router:external=True"),
    (
        "create_network",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    ("create_network:shared", "rule:admin_only"),
    ("create_network:router:external", "rule:admin_only"),
    ("create_network:is_default", "rule:admin_only"),
    (
        "create_network:port_security_enabled",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    ("create_network:segments", "rule:admin_only"),
    ("create_network:provider:network_type", "rule:admin_only"),
    (
        "create_network:provider:physical_network",
        "rule:admin_only",
    ),
    ("create_network:provider:segmentation_id", "rule:admin_only"),
    (
        "create_network:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "get_network",
        "(rule:admin_only) or (role:reader and project_id:%(project_id)s) or rule:service_api or rule:shared or rule:external or rule:context_is_advsvc",
    ),
    ("get_network:segments", "rule:admin_only"),
    ("get_network:provider:network_type", "rule:admin_only"),
    ("get_network:provider:physical_network", "rule:admin_only"),
    ("get_network:provider:segmentation_id", "rule:admin_only"),
    (
        "get_network:tags",
        "(rule:admin_only) or (role:reader and project_id:%(project_id)s) or rule:shared or rule:external or rule:context_is_advsvc",
    ),
    (
        "update_network",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    ("update_network:segments", "rule:admin_only"),
    ("update_network:shared", "rule:admin_only"),
    ("update_network:provider:network_type", "rule:admin_only"),
    (
        "update_network:provider:physical_network",
        "rule:admin_only",
    ),
    ("update_network:provider:segmentation_id", "rule:admin_only"),
    ("update_network:router:external", "rule:admin_only"),
    ("update_network:is_default", "rule:admin_only"),
    (
        "update_network:port_security_enabled",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "update_network:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "delete_network",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "delete_network:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    ("network_device", "field:port:device_owner=~^network:"),
    ("compute_device", "field:port:device_owner=~^compute:"),
    ("baremetal_device", "field:port:device_owner=~^baremetal:"),
    ("manila_device", "field:port:device_owner=~^manila:"),
    (
        "create_port",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner or rule:shared",
    ),
    (
        "create_port:device_id",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s) or rule:service_api",
    ),
    (
        "create_port:device_owner",
        "not rule:network_device or (rule:admin_only) or (rule:service_api) or role:member and rule:network_owner",
    ),
    (
        "create_port:mac_address",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner",
    ),
    (
        "create_port:fixed_ips",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner or rule:shared",
    ),
    (
        "create_port:fixed_ips:ip_address",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner",
    ),
    (
        "create_port:fixed_ips:subnet_id",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner or rule:shared",
    ),
    (
        "create_port:port_security_enabled",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner",
    ),
    (
        "create_port:binding:host_id",
        "(rule:admin_only) or (rule:service_api)",
    ),
    ("create_port:binding:profile", "rule:service_api"),
    (
        "create_port:binding:vnic_type",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s) or rule:service_api",
    ),
    (
        "create_port:allowed_address_pairs",
        "(rule:admin_only) or (role:member and rule:network_owner) or rule:service_api",
    ),
    (
        "create_port:allowed_address_pairs:mac_address",
        "(rule:admin_only) or (role:member and rule:network_owner) or rule:service_api",
    ),
    (
        "create_port:allowed_address_pairs:ip_address",
        "(rule:admin_only) or (role:member and rule:network_owner) or rule:service_api",
    ),
    ("create_port:hints", "rule:admin_only"),
    ("create_port:trusted", "rule:admin_only"),
    (
        "create_port:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s) or rule:context_is_advsvc",
    ),
    (
        "get_port",
        "(rule:admin_only) or (rule:service_api) or role:reader and rule:network_owner or role:reader and project_id:%(project_id)s",
    ),
    (
        "get_port:binding:vif_type",
        "(rule:admin_only) or (rule:service_api)",
    ),
    (
        "get_port:binding:vif_details",
        "(rule:admin_only) or (rule:service_api)",
    ),
    (
        "get_port:binding:host_id",
        "(rule:admin_only) or (rule:service_api)",
    ),
    (
        "get_port:binding:profile",
        "(rule:admin_only) or (rule:service_api)",
    ),
    ("get_port:resource_request", "rule:admin_only"),
    ("get_port:hints", "rule:admin_only"),
    ("get_port:trusted", "rule:admin_only"),
    (
        "get_port:tags",
        "rule:context_is_advsvc or (rule:admin_only) or (role:reader and rule:network_owner) or role:reader and project_id:%(project_id)s",
    ),
    (
        "update_port",
        "(rule:admin_only) or (rule:service_api) or role:member and project_id:%(project_id)s",
    ),
    (
        "update_port:device_id",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s) or rule:service_api",
    ),
    (
        "update_port:device_owner",
        "not rule:network_device or (rule:admin_only) or (rule:service_api) or role:member and rule:network_owner",
    ),
    (
        "update_port:mac_address",
        "(rule:admin_only) or (rule:service_api) or role:manager and rule:network_owner",
    ),
    (
        "update_port:fixed_ips",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner",
    ),
    (
        "update_port:fixed_ips:ip_address",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner",
    ),
    (
        "update_port:fixed_ips:subnet_id",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner or rule:shared",
    ),
    (
        "update_port:port_security_enabled",
        "(rule:admin_only) or (rule:service_api) or role:member and rule:network_owner",
    ),
    (
        "update_port:binding:host_id",
        "(rule:admin_only) or (rule:service_api)",
    ),
    ("update_port:binding:profile", "rule:service_api"),
    (
        "update_port:binding:vnic_type",
        "(rule:admin_only) or (rule:service_api) or role:member and project_id:%(project_id)s",
    ),
    (
        "update_port:allowed_address_pairs",
        "(rule:admin_only) or (role:member and rule:network_owner) or rule:service_api",
    ),
    (
        "update_port:allowed_address_pairs:mac_address",
        "(rule:admin_only) or (role:member and rule:network_owner) or rule:service_api",
    ),
    (
        "update_port:allowed_address_pairs:ip_address",
        "(rule:admin_only) or (role:member and rule:network_owner) or rule:service_api",
    ),
    (
        "update_port:data_plane_status",
        "rule:admin_only or role:data_plane_integrator",
    ),
    ("update_port:hints", "rule:admin_only"),
    ("update_port:trusted", "rule:admin_only"),
    (
        "update_port:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s) or rule:context_is_advsvc",
    ),
    (
        "delete_port",
        "(rule:admin_only) or (rule:service_api) or (service_roles:service and (role:member and rule:network_owner or role:member and project_id:%(project_id)s)) or (not rule:compute_device and not rule:baremetal_device and not rule:manila_device and (role:member and rule:network_owner or role:member and project_id:%(project_id)s))",
    ),
    (
        "delete_port:tags",
        "rule:context_is_advsvc or role:member and project_id:%(project_id)s or (rule:admin_only) or (role:member and rule:network_owner)",
    ),
    (
        "get_quota",
        "(rule:admin_only) or (role:manager and project_id:%(project_id)s)",
    ),
    ("update_quota", "rule:admin_only"),
    ("delete_quota", "rule:admin_only"),
    (
        "create_router",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    ("create_router:distributed", "rule:admin_only"),
    ("create_router:ha", "rule:admin_only"),
    (
        "create_router:external_gateway_info",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "create_router:external_gateway_info:network_id",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "create_router:external_gateway_info:enable_snat",
        "rule:admin_only",
    ),
    (
        "create_router:external_gateway_info:external_fixed_ips",
        "rule:admin_only",
    ),
    (
        "create_router:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "get_router",
        "(rule:admin_only) or (role:reader and project_id:%(project_id)s)",
    ),
    ("get_router:distributed", "rule:admin_only"),
    ("get_router:ha", "rule:admin_only"),
    (
        "get_router:tags",
        "(rule:admin_only) or (role:reader and project_id:%(project_id)s)",
    ),
    (
        "update_router",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    ("update_router:distributed", "rule:admin_only"),
    ("update_router:ha", "rule:admin_only"),
    (
        "update_router:external_gateway_info",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "update_router:external_gateway_info:network_id",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "update_router:external_gateway_info:enable_snat",
        "rule:admin_only",
    ),
    (
        "update_router:external_gateway_info:external_fixed_ips",
        "rule:admin_only",
    ),
    (
        "update_router:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "delete_router",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "delete_router:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "add_router_interface",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "remove_router_interface",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    ("shared_security_group", "field:security_groups:shared=True"),
    (
        "rule_default_sg",
        "field:security_group_rules:belongs_to_default_sg=True",
    ),
    (
        "create_default_security_group",
        "(rule:admin_only) or (rule:service_api) or role:reader and project_id:%(project_id)s",
    ),
    (
        "create_security_group",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "create_security_group:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "get_security_group",
        "(rule:admin_only) or (role:reader and project_id:%(project_id)s) or rule:shared_security_group",
    ),
    (
        "get_security_group:tags",
        "(rule:admin_only) or (role:reader and project_id:%(project_id)s) or rule:shared_security_group",
    ),
    (
        "update_security_group",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "update_security_group:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "delete_security_group",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "delete_security_group:tags",
        "(rule:admin_only) or (role:member and project_id:%(project_id)s)",
    ),
    (
        "create_security_group_rule",
        "(rule:admin_only) or (role:member and rule:sg_owner)",
    ),
    (
        "get_security_group_rule",
        "(rule:admin_only) or (role:reader and rule:sg_owner)",
    ),
    (
        "delete_security_group_rule",
        "(rule:admin_only) or (role:member and rule:sg_owner)",
    ),
    ("external_network", "field:subnets:router:external=True"),
    (
        "create_subnet",
        "(rule:admin_only) or (role:member and rule:network_owner)",
    ),
    ("create_subnet:segment_id", "rule:admin_only"),
    ("create_subnet:service_types", "rule:admin_only"),
    (
        "create_subnet:tags",
        "role:member and project_id:%(project_id)s or (rule:admin_only) or (role:member and rule:network_owner)",
    ),
    (
        "get_subnet",
        "role:reader and project_id:%(project_id)s or rule:shared or rule:external_network or (rule:admin_only) or (role:reader and rule:network_owner) or rule:service_api",
    ),
    ("get_subnet:segment_id", "rule:admin_only"),
    (
        "get_subnet:tags",
        "role:reader and project_id:%(project_id)s or rule:shared or rule:external_network or (rule:admin_only) or (role:reader and rule:network_owner)",
    ),
    (
        "update_subnet",
        "role:member and project_id:%(project_id)s or (rule:admin_only) or (role:member and rule:network_owner)",
    ),
    ("update_subnet:segment_id", "rule:admin_only"),
    ("update_subnet:service_types", "rule:admin_only"),
    (
        "update_subnet:tags",
        "role:member and project_id:%(project_id)s or (rule:admin_only) or (role:member and rule:network_owner)",
    ),
    (
        "delete_subnet",
        "role:member and project_id:%(project_id)s or (rule:admin_only) or (role:member and rule:network_owner)",
    ),
    (
        "delete_subnet:tags",
        "role:member and project_id:%(project_id)s or (rule:admin_only) or (role:member and rule:network_owner)",
    ),
];
