//! The API's HTTP: every route, as data, and the way each request takes: route → token → body → handler → answer.
//!
//! Guarantees: every route but the marked ones needs a valid token before its body is read; a body is bounded; every
//! error has Neutron's (or, under /identity, Keystone's) form.

mod address_group;
mod agent;
mod auto_allocated_topology;
mod caller;
mod error;
mod event;
mod identity;
mod log;
mod network_ip_availability;
pub mod openapi;
mod port_binding;
mod qos_rule_type;
mod quota;
mod request;
mod request_id;
mod resource;
mod router;
mod subnetpool;
mod tag;
mod trunk;
mod version;
mod write_options;

use crate::app::address_group::AddressGroup;
use crate::app::address_scope::AddressScope;
use crate::app::agent::Agent;
use crate::app::conntrack_helper::ConntrackHelper;
use crate::app::default_security_group_rule::DefaultSecurityGroupRule;
use crate::app::flavor::Flavor;
use crate::app::floating_ip::FloatingIp;
use crate::app::local_ip::LocalIp;
use crate::app::local_ip_port_association::LocalIpPortAssociation;
use crate::app::log::Log;
use crate::app::metering::{MeteringLabel, MeteringLabelRule};
use crate::app::ndp_proxy::NdpProxy;
use crate::app::network::Network;
use crate::app::network_segment_range::NetworkSegmentRange;
use crate::app::policy::Caller;
use crate::app::port::Port;
use crate::app::port_forwarding::PortForwarding;
use crate::app::qos_policy::QosPolicy;
use crate::app::qos_rule::{
    BandwidthLimit, DscpMarking, MinimumBandwidth, MinimumPacketRate, PacketRateLimit, QosRule,
    QosRuleAlias,
};
use crate::app::rbac_policy::RbacPolicy;
use crate::app::resource::{Resource, Shape};
use crate::app::router::Router as RouterResource;
use crate::app::security_group::SecurityGroup;
use crate::app::security_group_rule::SecurityGroupRule;
use crate::app::security_groups_default_statefulness::SecurityGroupsDefaultStatefulness;
use crate::app::segment::Segment;
use crate::app::service_profile::{FlavorServiceProfile, ServiceProfile};
use crate::app::subnet::Subnet;
use crate::app::subnetpool::Subnetpool;
use crate::app::trunk::Trunk;
use crate::app::{App, error::Error};
use crate::feed::Hub;
use crate::identity::{Authority, Identity};
use crate::realize::Trials;
use axum::Router;
use axum::extract::State;
use axum::http::Method;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use error::HttpError;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use request::{Reply, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// From a request's head to its answer, its body's arrival included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What handlers work with.
#[derive(Clone)]
pub struct Server {
    /// The networking API's rules.
    pub app: App,
    /// Who validates tokens.
    pub authority: Arc<Authority>,
    /// The URL that clients reach this server by; none for the one that each request came to.
    pub public_url: Option<String>,
    /// What is known of the hosts.
    pub hub: Arc<Hub>,
    /// Who says what writes would change at hosts.
    trials: Trials,
    /// Open event streams.
    streams: Arc<event::Streams>,
    /// Ends streams.
    closing: CancellationToken,
}

impl Server {
    /// A server whose streams end when `closing` is cancelled.
    #[must_use]
    pub fn new(
        app: App,
        authority: Authority,
        public_url: Option<String>,
        hosts: (Arc<Hub>, Trials),
        closing: CancellationToken,
    ) -> Self {
        Self {
            app,
            authority: Arc::new(authority),
            public_url,
            hub: hosts.0,
            trials: hosts.1,
            streams: Arc::default(),
            closing,
        }
    }

    /// The built-in identity, for its own routes.
    fn identity(&self) -> Result<&Identity, HttpError> {
        Ok(self.authority.builtin()?)
    }

    /// The region that the built-in identity's catalogue names.
    fn region(&self) -> &str {
        self.authority.builtin().map_or("", Identity::region)
    }

    /// Where clients reach this server.
    fn origin(&self, request: &Request) -> String {
        self.public_url.clone().unwrap_or_else(|| request.origin())
    }
}

type Handler = fn(Arc<Server>, Request) -> BoxFuture<'static, Result<Reply, HttpError>>;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Whoever has a token; what it may do is the policy's.
    Token,
}

/// One route.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with `{…}` for parameters.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// For the five operations of a resource: which one, and of what.
    pub shape: Option<(Operation, Shape)>,
    handler: Handler,
}

/// What a route does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// GET of the collection.
    List,
    /// POST
    Create,
    /// GET of one.
    Show,
    /// PUT
    Update,
    /// DELETE
    Delete,
}

impl Route {
    /// Says what it does, for the API's description.
    fn of<R: Resource>(mut self, operation: Operation) -> Self {
        self.shape = Some((operation, Shape::of::<R>()));
        self
    }
}

fn route(method: Method, path: &'static str, access: Access, handler: Handler) -> Route {
    Route {
        method,
        path,
        access,
        shape: None,
        handler,
    }
}

/// The five operations of a resource, by its collection's path; one that lives under another names the other's id
/// `{parent}`.
macro_rules! crud {
    ($routes:ident, $collection:literal, $resource:ty) => {
        let (list, one) = (
            concat!("/v2.0/", $collection),
            concat!("/v2.0/", $collection, "/{id}"),
        );
        $routes.extend([
            route(
                Method::GET,
                list,
                Access::Token,
                resource::list::<$resource>,
            )
            .of::<$resource>(Operation::List),
            route(
                Method::POST,
                list,
                Access::Token,
                resource::create::<$resource>,
            )
            .of::<$resource>(Operation::Create),
            route(Method::GET, one, Access::Token, resource::show::<$resource>)
                .of::<$resource>(Operation::Show),
            route(
                Method::PUT,
                one,
                Access::Token,
                resource::update::<$resource>,
            )
            .of::<$resource>(Operation::Update),
            route(
                Method::DELETE,
                one,
                Access::Token,
                resource::delete::<$resource>,
            )
            .of::<$resource>(Operation::Delete),
        ]);
    };
}

/// The three operations on what is already there, by its collection's path.
macro_rules! one {
    ($routes:ident, $collection:literal, $resource:ty) => {
        let one = concat!("/v2.0/", $collection, "/{id}");
        $routes.extend([
            route(Method::GET, one, Access::Token, resource::show::<$resource>)
                .of::<$resource>(Operation::Show),
            route(
                Method::PUT,
                one,
                Access::Token,
                resource::update::<$resource>,
            )
            .of::<$resource>(Operation::Update),
            route(
                Method::DELETE,
                one,
                Access::Token,
                resource::delete::<$resource>,
            )
            .of::<$resource>(Operation::Delete),
        ]);
    };
}

/// The operations on a resource's tags.
macro_rules! tags {
    ($routes:ident, $collection:literal, $resource:ty) => {
        let (all, one) = (
            concat!("/v2.0/", $collection, "/{id}/tags"),
            concat!("/v2.0/", $collection, "/{id}/tags/{tag}"),
        );
        $routes.extend([
            route(Method::GET, all, Access::Token, tag::list::<$resource>),
            route(Method::PUT, all, Access::Token, tag::replace::<$resource>),
            route(Method::POST, all, Access::Token, tag::add::<$resource>),
            route(
                Method::DELETE,
                all,
                Access::Token,
                tag::remove_all::<$resource>,
            ),
            route(Method::GET, one, Access::Token, tag::show::<$resource>),
            route(Method::PUT, one, Access::Token, tag::add_one::<$resource>),
            route(
                Method::DELETE,
                one,
                Access::Token,
                tag::remove_one::<$resource>,
            ),
        ]);
    };
}

/// All routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    use Access::{Public, Token};
    let mut routes = vec![
        route(Method::GET, "/", Public, version::root),
        route(Method::GET, "/openapi", Public, openapi::page),
        route(Method::GET, "/openapi.json", Public, openapi::show),
        route(Method::GET, "/v2.0", Public, version::v2),
        route(Method::GET, "/v2.0/", Public, version::v2),
        route(Method::GET, "/v2.0/extensions", Token, version::extensions),
        route(
            Method::GET,
            "/v2.0/extensions/{alias}",
            Token,
            version::extension,
        ),
        route(
            Method::GET,
            "/v2.0/availability_zones",
            Token,
            version::availability_zones,
        ),
        route(Method::GET, "/v2.0/events", Token, event::events),
    ];
    routes.extend(resources());
    routes.extend(qos());
    routes.extend(tags());
    routes.extend(port_bindings());
    routes.extend(operations());
    routes.extend(agent::routes());
    routes.extend(quota::routes());
    routes.extend(router::routes());
    routes.extend(identity::routes());
    routes
}

/// The five operations of every resource.
fn resources() -> Vec<Route> {
    let mut routes = Vec::new();
    crud!(routes, "networks", Network);
    crud!(routes, "network-segment-ranges", NetworkSegmentRange);
    crud!(routes, "segments", Segment);
    crud!(routes, "subnets", Subnet);
    crud!(routes, "subnetpools", Subnetpool);
    crud!(routes, "address-scopes", AddressScope);
    crud!(routes, "ports", Port);
    crud!(routes, "routers", RouterResource);
    crud!(routes, "floatingips", FloatingIp);
    crud!(
        routes,
        "floatingips/{parent}/port_forwardings",
        PortForwarding
    );
    crud!(
        routes,
        "routers/{parent}/conntrack_helpers",
        ConntrackHelper
    );
    crud!(routes, "ndp_proxies", NdpProxy);
    crud!(routes, "local_ips", LocalIp);
    crud!(
        routes,
        "local_ips/{parent}/port_associations",
        LocalIpPortAssociation
    );
    crud!(routes, "flavors", Flavor);
    crud!(routes, "service_profiles", ServiceProfile);
    crud!(
        routes,
        "flavors/{parent}/service_profiles",
        FlavorServiceProfile
    );
    crud!(routes, "metering/metering-labels", MeteringLabel);
    crud!(routes, "metering/metering-label-rules", MeteringLabelRule);
    crud!(routes, "security-groups", SecurityGroup);
    crud!(routes, "security-group-rules", SecurityGroupRule);
    crud!(
        routes,
        "default-security-group-rules",
        DefaultSecurityGroupRule
    );
    crud!(
        routes,
        "security-groups-default-statefulness",
        SecurityGroupsDefaultStatefulness
    );
    crud!(routes, "address-groups", AddressGroup);
    crud!(routes, "rbac-policies", RbacPolicy);
    crud!(routes, "trunks", Trunk);
    crud!(routes, "log/logs", Log);
    crud!(routes, "agents", Agent);
    routes
}

/// QoS policies, and their rules under both of their paths.
fn qos() -> Vec<Route> {
    let mut routes = Vec::new();
    crud!(routes, "qos/policies", QosPolicy);
    crud!(
        routes,
        "qos/policies/{parent}/bandwidth_limit_rules",
        QosRule<BandwidthLimit>
    );
    crud!(
        routes,
        "qos/policies/{parent}/packet_rate_limit_rules",
        QosRule<PacketRateLimit>
    );
    crud!(
        routes,
        "qos/policies/{parent}/dscp_marking_rules",
        QosRule<DscpMarking>
    );
    crud!(
        routes,
        "qos/policies/{parent}/minimum_bandwidth_rules",
        QosRule<MinimumBandwidth>
    );
    crud!(
        routes,
        "qos/policies/{parent}/minimum_packet_rate_rules",
        QosRule<MinimumPacketRate>
    );
    one!(
        routes,
        "qos/alias_bandwidth_limit_rules",
        QosRuleAlias<BandwidthLimit>
    );
    one!(
        routes,
        "qos/alias_dscp_marking_rules",
        QosRuleAlias<DscpMarking>
    );
    one!(
        routes,
        "qos/alias_minimum_bandwidth_rules",
        QosRuleAlias<MinimumBandwidth>
    );
    one!(
        routes,
        "qos/alias_minimum_packet_rate_rules",
        QosRuleAlias<MinimumPacketRate>
    );
    routes
}

/// The operations on the tags of those that have some.
fn tags() -> Vec<Route> {
    let mut routes = Vec::new();
    tags!(routes, "networks", Network);
    tags!(routes, "network-segment-ranges", NetworkSegmentRange);
    // The path that Neutron has for them.
    tags!(routes, "network_segment_ranges", NetworkSegmentRange);
    tags!(routes, "subnets", Subnet);
    tags!(routes, "subnetpools", Subnetpool);
    tags!(routes, "ports", Port);
    tags!(routes, "routers", RouterResource);
    tags!(routes, "floatingips", FloatingIp);
    tags!(routes, "security-groups", SecurityGroup);
    tags!(routes, "trunks", Trunk);
    tags!(routes, "policies", QosPolicy);
    tags!(routes, "qos/policies", QosPolicy);
    routes
}

/// The hosts that a port is or may be on.
fn port_bindings() -> Vec<Route> {
    let (all, one, activate) = (
        "/v2.0/ports/{id}/bindings",
        "/v2.0/ports/{id}/bindings/{host}",
        "/v2.0/ports/{id}/bindings/{host}/activate",
    );
    vec![
        route(Method::GET, all, Access::Token, port_binding::list),
        route(Method::POST, all, Access::Token, port_binding::create),
        route(Method::GET, one, Access::Token, port_binding::show),
        route(Method::PUT, one, Access::Token, port_binding::update),
        route(Method::DELETE, one, Access::Token, port_binding::delete),
        route(Method::PUT, activate, Access::Token, port_binding::activate),
    ]
}

/// Operations of resources' own.
fn operations() -> Vec<Route> {
    let get = |path, handler| route(Method::GET, path, Access::Token, handler);
    let put = |path, handler| route(Method::PUT, path, Access::Token, handler);
    vec![
        put("/v2.0/trunks/{id}/add_subports", trunk::add_subports),
        put("/v2.0/trunks/{id}/remove_subports", trunk::remove_subports),
        get("/v2.0/trunks/{id}/get_subports", trunk::get_subports),
        get("/v2.0/qos/rule-types", qos_rule_type::list),
        get("/v2.0/qos/rule-types/{type}", qos_rule_type::show),
        put(
            "/v2.0/subnetpools/{id}/add_prefixes",
            subnetpool::add_prefixes,
        ),
        put(
            "/v2.0/subnetpools/{id}/remove_prefixes",
            subnetpool::remove_prefixes,
        ),
        put(
            "/v2.0/subnetpools/{id}/onboard_network_subnets",
            subnetpool::onboard_network_subnets,
        ),
        get(
            "/v2.0/auto-allocated-topology/{project}",
            auto_allocated_topology::show,
        ),
        route(
            Method::DELETE,
            "/v2.0/auto-allocated-topology/{project}",
            Access::Token,
            auto_allocated_topology::delete,
        ),
        get(
            "/v2.0/network-ip-availabilities",
            network_ip_availability::list,
        ),
        get(
            "/v2.0/network-ip-availabilities/{id}",
            network_ip_availability::show,
        ),
        put(
            "/v2.0/address-groups/{id}/add_addresses",
            address_group::add_addresses,
        ),
        put(
            "/v2.0/address-groups/{id}/remove_addresses",
            address_group::remove_addresses,
        ),
        get("/v2.0/log/loggable-resources", log::loggable_resources),
    ]
}

/// The API, ready to be served.
pub fn router(server: Arc<Server>) -> Router {
    let mut by_path: Vec<(&'static str, MethodRouter<Arc<Server>>)> = Vec::new();
    for Route {
        method,
        path,
        access,
        handler,
        shape: _,
    } in routes()
    {
        // Whoever has a Keystone must not find another identity here.
        if path.starts_with("/identity") && server.authority.builtin().is_err() {
            continue;
        }
        let Ok(filter) = MethodFilter::try_from(method) else {
            continue;
        };
        let serve = move |State(server): State<Arc<Server>>, request: axum::extract::Request| {
            serve(server, request, (access, handler))
        };
        match by_path.iter_mut().find(|(known, _)| *known == path) {
            Some((_, methods)) => *methods = std::mem::take(methods).on(filter, serve),
            None => by_path.push((path, on(filter, serve))),
        }
    }
    let mut router = Router::new();
    for (path, methods) in by_path {
        let no_method = || async { HttpError::NoMethod.into_response() };
        router = router.route(path, methods.fallback(no_method));
    }
    router
        .fallback(|| async { HttpError::NoRoute.into_response() })
        .layer(middleware::from_fn(request_id::numbered))
        .with_state(server)
}

async fn serve(
    server: Arc<Server>,
    request: axum::extract::Request,
    (access, handler): (Access, Handler),
) -> Response {
    let done = async {
        let (mut parts, body) = request.into_parts();
        let caller = match access {
            Access::Public => Caller::default(),
            Access::Token => caller::of(&server, &parts.headers, parts.uri.path()).await?,
        };
        let request = Request::read(&mut parts, body, caller).await?;
        write_options::serve(server, request, &parts.method, handler).await
    };
    // A request that is given up undoes what it has written.
    match tokio::time::timeout(REQUEST_TIMEOUT, done).await {
        Ok(Ok(reply)) => reply.into_response(),
        Ok(Err(error)) => error.into_response(),
        Err(_elapsed) => HttpError::App(Error::Busy).into_response(),
    }
}

/// Boxes a handler's future, so that handlers of all kinds fit into one table.
fn boxed<F>(future: F) -> BoxFuture<'static, Result<Reply, HttpError>>
where
    F: Future<Output = Result<Reply, HttpError>> + Send + 'static,
{
    future.boxed()
}
