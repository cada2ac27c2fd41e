//! Who may use what of other projects.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, row};
use super::{Conn, Resource, Result, WriteTx, sql};
use std::collections::BTreeSet;

/// The target that stands for all projects.
pub const EVERYBODY: &str = "*";

row! {
    /// One permission.
    RbacPolicyRow: RbacPolicy in "rbac_policies" {
        /// Neutron's name of the kind of object: network, qos_policy, security_group, …
        object_type: String,
        /// The object.
        object_id: String,
        /// The project that may, or [`EVERYBODY`].
        target_project: String,
        /// access_as_shared, access_as_external
        action: String,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("object_type", "object_type IN ({})", "object_type"),
        Column::sorted("object_id", "object_id IN ({})", "object_id"),
        Column::sorted("target_tenant", "target_project IN ({})", "target_project"),
        Column::sorted("action", "action IN ({})", "action"),
    ];
    visible &[];
}

/// The permissions on some objects of a kind that a project has, as object and action.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn granted(
    conn: &mut Conn,
    object_type: &'static str,
    project: &str,
    objects: &[&str],
) -> Result<Vec<(String, String)>> {
    let mut found: Vec<RbacPolicyRow> = policies_of(conn, object_type, objects).await?;
    found.retain(|row| row.target_project == EVERYBODY || row.target_project == project);
    Ok(found
        .into_iter()
        .map(|row| (row.object_id, row.action))
        .collect())
}

/// All permissions on some objects of a kind.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn policies_of(
    conn: &mut Conn,
    object_type: &'static str,
    objects: &[&str],
) -> Result<Vec<RbacPolicyRow>> {
    let select = format!(
        "{}object_type = '{object_type}' AND object_id IN",
        <RbacPolicyRow as super::Row>::sql().select
    );
    by_parents(conn, &select, "ORDER BY object_id, id", objects).await
}

/// Takes all permissions on an object away, because it is gone.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn object_gone(tx: &mut WriteTx, object_type: &str, object_id: &str) -> Result<()> {
    sql::query("DELETE FROM rbac_policies WHERE object_type = $1 AND object_id = $2")
        .bind(object_type)
        .bind(object_id)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// What a policy may allow, and who makes use of it.
pub struct Action {
    /// Neutron's name.
    pub name: &'static str,
    /// The projects that use the object `$1` by this action, its owner perhaps among them.
    users: &'static str,
}

/// A kind of object that can be shared.
pub struct ObjectKind {
    /// Neutron's name: the policy's `object_type`.
    pub name: &'static str,
    table: &'static str,
    resource: Resource,
    /// What a policy may allow.
    pub actions: &'static [Action],
}

/// All kinds, one a resource with [`RBAC`](crate::app::resource::Resource::RBAC).
pub const KINDS: &[ObjectKind] = &[
    ObjectKind {
        name: "network",
        table: "networks",
        resource: Resource::Network,
        actions: &[
            Action {
                name: "access_as_shared",
                users: "SELECT project_id FROM ports WHERE network_id = $1 \
                        UNION SELECT project_id FROM subnets WHERE network_id = $1",
            },
            Action {
                name: "access_as_external",
                users: "SELECT r.project_id FROM ports p JOIN routers r ON r.id = p.device_id \
                        WHERE p.network_id = $1 AND p.device_owner = 'network:router_gateway' \
                        UNION SELECT project_id FROM floating_ips WHERE floating_network_id = $1",
            },
        ],
    },
    ObjectKind {
        name: "security_group",
        table: "security_groups",
        resource: Resource::SecurityGroup,
        actions: &[Action {
            name: "access_as_shared",
            users: "SELECT DISTINCT p.project_id FROM port_security_groups s \
                    JOIN ports p ON p.id = s.port_id WHERE s.security_group_id = $1",
        }],
    },
    ObjectKind {
        name: "address_scope",
        table: "address_scopes",
        resource: Resource::AddressScope,
        actions: &[Action {
            name: "access_as_shared",
            users: "SELECT DISTINCT project_id FROM subnetpools WHERE address_scope_id = $1",
        }],
    },
    ObjectKind {
        name: "subnetpool",
        table: "subnetpools",
        resource: Resource::Subnetpool,
        actions: &[Action {
            name: "access_as_shared",
            users: "SELECT DISTINCT project_id FROM subnets WHERE subnetpool_id = $1",
        }],
    },
    ObjectKind {
        name: "qos_policy",
        table: "qos_policies",
        resource: Resource::QosPolicy,
        actions: &[Action {
            name: "access_as_shared",
            users: "SELECT project_id FROM networks WHERE qos_policy_id = $1 \
                    UNION SELECT project_id FROM ports WHERE qos_policy_id = $1 \
                    UNION SELECT project_id FROM floating_ips WHERE qos_policy_id = $1 \
                    UNION SELECT project_id FROM routers WHERE gateway_qos_policy_id = $1",
        }],
    },
    ObjectKind {
        name: "address_group",
        table: "address_groups",
        resource: Resource::AddressGroup,
        actions: &[Action {
            name: "access_as_shared",
            users: "SELECT DISTINCT project_id FROM security_group_rules \
                    WHERE remote_address_group_id = $1",
        }],
    },
];

/// The kind of this name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static ObjectKind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The project that owns an object; none if there is no such object.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn owner(
    conn: &mut Conn,
    kind: &'static ObjectKind,
    object_id: &str,
) -> Result<Option<String>> {
    let text = format!("SELECT project_id FROM {} WHERE id = $1", kind.table);
    sql::query_scalar(sql::AssertSqlSafe(text))
        .bind(object_id)
        .fetch_optional(conn)
        .await
}

/// The projects that use an object by an action.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn users(
    conn: &mut Conn,
    kind: &'static ObjectKind,
    action: &str,
    object_id: &str,
) -> Result<BTreeSet<String>> {
    let Some(action) = kind.actions.iter().find(|known| known.name == action) else {
        return Ok(BTreeSet::new());
    };
    let users: Vec<String> = sql::query_scalar(action.users)
        .bind(object_id)
        .fetch_all(conn)
        .await?;
    Ok(users.into_iter().collect())
}

/// Makes an object newer, because who may use it has changed.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn object_bump(
    tx: &mut WriteTx,
    kind: &'static ObjectKind,
    object_id: &str,
) -> Result<()> {
    row::bump_in(tx, kind.resource, kind.table, object_id).await
}

/// Takes the permissions of one action on an object away.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn action_gone(
    tx: &mut WriteTx,
    object_type: &str,
    object_id: &str,
    action: &str,
) -> Result<()> {
    sql::query(
        "DELETE FROM rbac_policies WHERE object_type = $1 AND object_id = $2 AND action = $3",
    )
    .bind(object_type)
    .bind(object_id)
    .bind(action)
    .execute(tx.conn())
    .await?;
    Ok(())
}
