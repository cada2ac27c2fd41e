//! What the rows of all resources share: their standard columns, and insert, update, delete, get and list.

use super::sql::{self, AssertSqlSafe, FromRow, Query};
use super::{Conn, How, ListQuery, Result, WriteTx, list as list_sql};
use std::fmt::Write as _;
use std::sync::Arc;

/// The kinds of rows that have a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `networks` and their segments
    Network,
    /// `subnets`
    Subnet,
    /// `ports`, with addresses and security group bindings
    Port,
    /// `routers`, with interfaces
    Router,
    /// `floating_ips`
    FloatingIp,
    /// `security_groups`
    SecurityGroup,
    /// `security_group_rules`
    SecurityGroupRule,
    /// `rbac_policies`
    RbacPolicy,
    /// `qos_policies`
    QosPolicy,
    /// `qos_rules`
    QosRule,
    /// `address_scopes`
    AddressScope,
    /// `subnetpools`
    Subnetpool,
    /// `address_groups`
    AddressGroup,
    /// `default_security_group_rules`
    DefaultSecurityGroupRule,
    /// `security_groups_default_statefulness`
    SecurityGroupsDefaultStatefulness,
    /// `logs`
    Log,
    /// `port_forwardings`
    PortForwarding,
    /// `conntrack_helpers`
    ConntrackHelper,
    /// `flavors`
    Flavor,
    /// `service_profiles`
    ServiceProfile,
    /// `flavor_service_profiles`
    FlavorServiceProfile,
    /// `ndp_proxies`
    NdpProxy,
    /// `local_ips`
    LocalIp,
    /// `local_ip_port_associations`
    LocalIpPortAssociation,
    /// `metering_labels`
    MeteringLabel,
    /// `metering_label_rules`
    MeteringLabelRule,
    /// `network_segments`
    Segment,
    /// `network_segment_ranges`
    NetworkSegmentRange,
    /// `trunks`
    Trunk,
    /// `agents`
    Agent,
    /// `tunnel_hosts`; no resource of the API: its id is the host's name
    TunnelHost,
    /// `claimed_ips`; no resource of the API: its id is the port's
    ClaimedIp,
    /// `host_physical_networks`, `unreachable_hosts`; no resource of the API: its id is the host's name
    GatewayHost,
}

impl Resource {
    /// Its name in `changes`, and Neutron's in the singular.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Port => "port",
            Self::Router => "router",
            Self::FloatingIp => "floatingip",
            Self::SecurityGroup => "security_group",
            Self::SecurityGroupRule => "security_group_rule",
            Self::RbacPolicy => "rbac_policy",
            Self::QosPolicy => "qos_policy",
            Self::QosRule => "qos_rule",
            Self::AddressScope => "address_scope",
            Self::Subnetpool => "subnetpool",
            Self::AddressGroup => "address_group",
            Self::DefaultSecurityGroupRule => "default_security_group_rule",
            Self::SecurityGroupsDefaultStatefulness => "security_groups_default_statefulness",
            Self::Log => "log",
            Self::PortForwarding => "port_forwarding",
            Self::ConntrackHelper => "conntrack_helper",
            Self::Flavor => "flavor",
            Self::ServiceProfile => "service_profile",
            Self::FlavorServiceProfile => "flavor_service_profile",
            Self::NdpProxy => "ndp_proxy",
            Self::LocalIp => "local_ip",
            Self::LocalIpPortAssociation => "local_ip_port_association",
            Self::MeteringLabel => "metering_label",
            Self::MeteringLabelRule => "metering_label_rule",
            Self::Segment => "segment",
            Self::NetworkSegmentRange => "network_segment_range",
            Self::Trunk => "trunk",
            Self::Agent => "agent",
            Self::TunnelHost => "tunnel_host",
            Self::ClaimedIp => "claimed_ip",
            Self::GatewayHost => "gateway_host",
        }
    }
}

/// The SQL of one kind of row, made once.
pub struct RowSql {
    pub(super) select: Arc<str>,
    pub(super) insert: Arc<str>,
    pub(super) update: Arc<str>,
    pub(super) delete: Arc<str>,
}

impl RowSql {
    pub(super) fn new(table: &str, columns: &[&str]) -> Self {
        let list = columns.join(", ");
        let mut values = String::new();
        let mut sets = String::new();
        for (n, column) in columns.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(values, "{comma}${}", n + 1);
            let _ = write!(sets, "{comma}{column} = ${}", n + 1);
        }
        Self {
            select: format!("SELECT {list} FROM {table} WHERE ").into(),
            insert: format!("INSERT INTO {table} ({list}) VALUES ({values})").into(),
            // The id is the first column.
            update: format!("UPDATE {table} SET {sets} WHERE id = $1").into(),
            delete: format!("DELETE FROM {table} WHERE id = $1 RETURNING project_id").into(),
        }
    }
}

/// A resource's own row, without what hangs on it in other tables.
pub trait Row: FromRow + Clone + Send + Sync + 'static {
    /// Its kind.
    const RESOURCE: Resource;
    /// Its table.
    const TABLE: &'static str;
    /// What it may be filtered and sorted by.
    const FILTERS: &'static [list_sql::Column];
    /// Which rows of other projects a project's members see: for which one of these holds. No row is meant by two. `$1` is
    /// the project, here and in the filters.
    const VISIBLE: &'static [&'static str];

    /// Its statements.
    fn sql() -> &'static RowSql;
    /// Its id.
    fn id(&self) -> &str;
    /// The project that owns it; empty for what belongs to none.
    fn project_id(&self) -> &str;
    /// Its tags, in order.
    fn tags(&self) -> &[String];
    /// Sets its tags.
    fn tags_set(&mut self, tags: Vec<String>);
    /// How often it was changed, as Neutron counts.
    fn revision_number(&self) -> i64;
    /// Sets the standard columns of a row that is about to be written.
    fn stamp(&mut self, now: i64, revision: i64, new: bool);
    /// Binds all columns, in order.
    fn bind<'q>(&'q self, statement: Query<'q>) -> Query<'q>;
}

/// Declares a row: a struct with the standard columns and its own, and its [`Row`].
macro_rules! row {
    (
        $(#[$doc:meta])*
        $name:ident: $resource:ident in $table:literal
        { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }
        filters $filters:expr;
        visible $visible:expr;
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            /// Its UUID.
            pub id: String,
            /// The project that owns it; empty for what belongs to none.
            pub project_id: String,
            $($(#[$field_doc])* pub $field: $type,)*
            /// Words that callers hang on it, in order.
            pub tags: crate::store::JsonText<Vec<String>>,
            /// Microseconds since 1970 (UTC).
            pub created_at: i64,
            /// Microseconds since 1970 (UTC).
            pub updated_at: i64,
            /// Neutron's `revision_number`: grows with every change of this resource.
            pub revision_number: i64,
            /// The control plane's revision of the last change.
            pub revision: i64,
        }

        crate::store::sql::from_row!($name {
            id, project_id, $($field,)* tags, created_at, updated_at, revision_number, revision
        });

        impl crate::store::Row for $name {
            const RESOURCE: crate::store::Resource = crate::store::Resource::$resource;
            const TABLE: &'static str = $table;
            const FILTERS: &'static [crate::store::list::Column] = $filters;
            const VISIBLE: &'static [&'static str] = $visible;

            fn sql() -> &'static crate::store::row::RowSql {
                static SQL: std::sync::LazyLock<crate::store::row::RowSql> =
                    std::sync::LazyLock::new(|| crate::store::row::RowSql::new($table, &[
                        "id", "project_id", $(stringify!($field),)*
                        "tags", "created_at", "updated_at", "revision_number", "revision",
                    ]));
                &SQL
            }

            fn id(&self) -> &str {
                &self.id
            }

            fn project_id(&self) -> &str {
                &self.project_id
            }

            fn tags(&self) -> &[String] {
                &self.tags.0
            }

            fn tags_set(&mut self, tags: Vec<String>) {
                self.tags = crate::store::JsonText(tags);
            }

            fn revision_number(&self) -> i64 {
                self.revision_number
            }

            fn stamp(&mut self, now: i64, revision: i64, new: bool) {
                if new {
                    self.created_at = now;
                    self.revision_number = 0;
                }
                self.updated_at = now;
                self.revision_number += 1;
                self.revision = revision;
            }

            fn bind<'q>(
                &'q self,
                statement: crate::store::sql::Query<'q>,
            ) -> crate::store::sql::Query<'q> {
                statement
                    .bind(&self.id)
                    .bind(&self.project_id)
                    $(.bind(&self.$field))*
                    .bind(&self.tags)
                    .bind(self.created_at)
                    .bind(self.updated_at)
                    .bind(self.revision_number)
                    .bind(self.revision)
            }
        }
    };
}
pub(super) use row;

/// Writes a new row, stamped.
///
/// # Errors
/// [`super::StoreError::Conflict`] if a unique key is taken.
pub async fn insert<R: Row>(tx: &mut WriteTx, row: &mut R) -> Result<()> {
    let project = Some(row.project_id());
    let revision = tx
        .touch_as(R::RESOURCE, row.id(), How::Created, project)
        .await?;
    row.stamp(tx.now(), revision, true);
    row.bind(sql::query(AssertSqlSafe(R::sql().insert.clone())))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Writes a changed row, stamped.
///
/// # Errors
/// [`super::StoreError::Conflict`] if a unique key is taken.
pub async fn update<R: Row>(tx: &mut WriteTx, row: &mut R) -> Result<()> {
    let project = Some(row.project_id());
    let revision = tx
        .touch_as(R::RESOURCE, row.id(), How::Changed, project)
        .await?;
    row.stamp(tx.now(), revision, false);
    row.bind(sql::query(AssertSqlSafe(R::sql().update.clone())))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Makes a row newer without another change of its own: what it shows, from other tables, has changed.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn bump<R: Row>(tx: &mut WriteTx, id: &str) -> Result<()> {
    bump_in(tx, R::RESOURCE, R::TABLE, id).await
}

/// [`bump`] for a kind that is known by its table only.
pub(super) async fn bump_in(
    tx: &mut WriteTx,
    resource: Resource,
    table: &'static str,
    id: &str,
) -> Result<()> {
    let revision = tx.touch(resource, id).await?;
    let text = format!(
        "UPDATE {table} SET revision_number = revision_number + 1, updated_at = $2, revision = $3 \
         WHERE id = $1"
    );
    sql::query(AssertSqlSafe(text))
        .bind(id)
        .bind(tx.now())
        .bind(revision)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Writes the tags of a row that the same transaction has made: they come with it, and are no change of it.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn tags_write<R: Row>(tx: &mut WriteTx, id: &str, tags: Vec<String>) -> Result<()> {
    let text = format!("UPDATE {} SET tags = $2 WHERE id = $1", R::TABLE);
    sql::query(AssertSqlSafe(text))
        .bind(id)
        .bind(&super::JsonText(tags))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Deletes a row.
///
/// # Errors
/// [`super::StoreError::Reference`] if something still refers to it.
pub async fn delete<R: Row>(tx: &mut WriteTx, id: &str) -> Result<()> {
    let project: Option<String> = sql::query_scalar(AssertSqlSafe(R::sql().delete.clone()))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    tx.touch_as(R::RESOURCE, id, How::Deleted, project.as_deref())
        .await?;
    Ok(())
}

/// Reads a row.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn get<R: Row>(conn: &mut Conn, id: &str) -> Result<Option<R>> {
    Ok(fetch::<R>(conn, "id = $1", &[id]).await?.into_iter().next())
}

/// Reads the rows that a query asks for, in its order. They may be many, and are large: each has its own place in memory,
/// which is free again when it is done with.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn list<R: Row>(conn: &mut Conn, query: &ListQuery) -> Result<Vec<Box<R>>> {
    list_sql::rows(conn, query).await
}

/// Reads the rows for which a condition (SQL, with the texts as `$1`, `$2`, …) holds.
pub(super) async fn fetch<R: Row>(
    conn: &mut Conn,
    condition: &'static str,
    texts: &[&str],
) -> Result<Vec<R>> {
    if texts.iter().any(|text| text.contains('\0')) {
        // No row has such a text: see StoreError::Nul.
        return Ok(Vec::new());
    }
    let select = format!("{}{condition}", R::sql().select);
    let mut query = sql::query_as(AssertSqlSafe(select));
    for text in texts {
        query = query.bind(*text);
    }
    query.fetch_all(conn).await
}
