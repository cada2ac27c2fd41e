//! QoS policies: what a port, a network, a floating IP or a router's gateway may be put under.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result};
use super::policy::Caller;
use super::qos_rule;
use super::rbac_policy::{self, Object, SHARED};
use super::resource::{self, Resource, Write};
use super::view::{View, view};
use crate::store::qos_policy::{self as store, QosPolicyRow, QosRuleRow, rule_list_policies};
use crate::store::rbac_policy::{EVERYBODY, RbacPolicyRow, kind, policies_of, users};
use crate::store::{self as rows, Conn};
use std::collections::HashMap;
use uuid::Uuid;

/// The resource.
pub struct QosPolicy;

/// A policy with its rules.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: QosPolicyRow,
    /// Its rules.
    pub rules: Vec<QosRuleRow>,
}

impl Resource for QosPolicy {
    type Row = QosPolicyRow;
    type Item = Item;

    const NAME: &'static str = "policy";
    const COLLECTION: &'static str = "policies";
    const NOT_FOUND: &'static str = "QosPolicyNotFound";
    const TITLE: &'static str = "QoS policy";
    const RBAC: Option<&'static str> = Some("qos_policy");
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("shared", Kind::Bool)
            .post(Default::Bool(false))
            .put()
            .filter(),
        Attribute::new("is_default", Kind::Bool)
            .post(Default::Bool(false))
            .put()
            .filter(),
        Attribute::new("rules", Kind::UuidList),
    ];

    fn row(item: &Item) -> &QosPolicyRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, policies: Vec<QosPolicyRow>) -> Result<Vec<Item>> {
        let ids: Vec<&str> = policies.iter().map(|row| row.id.as_str()).collect();
        let mut rules: HashMap<String, Vec<QosRuleRow>> = HashMap::new();
        for rule in rule_list_policies(conn, &ids).await? {
            rules.entry(rule.policy_id.clone()).or_default().push(rule);
        }
        Ok(policies
            .into_iter()
            .map(|row| Item {
                rules: rules.remove(&row.id).unwrap_or_default(),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        let rules: Vec<_> = item.rules.iter().map(qos_rule::view_in_policy).collect();
        let row = &item.row;
        view! { row;
            "name" => row.name,
            "is_default" => row.is_default,
            "rules" => rules,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let mut row = QosPolicyRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            is_default: given.truth("is_default").unwrap_or(false),
            ..QosPolicyRow::default()
        };
        check_default(write, &row).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        let shared = given.truth("shared").unwrap_or(false);
        rbac_policy::everybody_set(write, object(&row), SHARED, shared).await?;
        Ok(Item {
            row,
            rules: Vec::new(),
        })
    }

    async fn update(write: &mut Write<'_>, item: Item, mut given: Attributes) -> Result<Item> {
        let Item { mut row, rules } = item;
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        row.is_default = given.truth("is_default").unwrap_or(row.is_default);
        check_default(write, &row).await?;
        if let Some(shared) = given.truth("shared") {
            if !shared && rbac_policy::everybody(write.conn(), object(&row), SHARED).await? {
                check_unshared(write, &row.id).await?;
            }
            rbac_policy::everybody_set(write, object(&row), SHARED, shared).await?;
        }
        rows::update(&mut write.tx, &mut row).await?;
        Ok(Item { row, rules })
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        let id = &item.row.id;
        if let Some((kind, user)) = store::user_get(write.conn(), id).await? {
            return Err(Error::conflict(
                "QosPolicyInUse",
                format!("QoS Policy {id} is used by {kind} {user}."),
            ));
        }
        rows::delete::<QosPolicyRow>(&mut write.tx, id).await?;
        Ok(())
    }
}

/// The policy as RBAC policies name it.
pub(super) fn object(row: &QosPolicyRow) -> Object<'_> {
    Object {
        object_type: "qos_policy",
        id: &row.id,
        project_id: &row.project_id,
    }
}

/// A project has one default policy at most.
async fn check_default(write: &mut Write<'_>, row: &QosPolicyRow) -> Result<()> {
    if row.is_default
        && let Some(other) = store::default_get(write.conn(), &row.project_id).await?
        && other.id != row.id
    {
        return Err(Error::conflict(
            "QoSPolicyDefaultAlreadyExists",
            format!(
                "A default QoS policy exists for project {}.",
                row.project_id
            ),
        ));
    }
    Ok(())
}

/// Fails if something is under the policy that could not be put there any more once it is not everybody's.
async fn check_unshared(write: &mut Write<'_>, policy: &str) -> Result<()> {
    let Some(kind) = kind("qos_policy") else {
        return Ok(());
    };
    let policies = policies_of(write.conn(), kind.name, &[policy]).await?;
    let shared_with = |project: &String| {
        let with = |rbac: &RbacPolicyRow| rbac.action == SHARED && rbac.target_project == *project;
        policies.iter().any(with)
    };
    // The owner's own use counts too, as in Neutron.
    let users = users(write.conn(), kind, SHARED, policy).await?;
    if users.iter().all(shared_with) {
        return Ok(());
    }
    Err(Error::conflict(
        "RbacPolicyInUse",
        format!(
            "RBAC policy on object {policy} cannot be removed because other objects depend on it. \
             Details: project_id={EVERYBODY}"
        ),
    ))
}

/// The policy's row, if the caller may put something under it.
pub(super) async fn usable(conn: &mut Conn, caller: &Caller, id: &str) -> Result<QosPolicyRow> {
    let not_found = || resource::not_found::<QosPolicy>(id);
    let row = rows::get::<QosPolicyRow>(conn, id)
        .await?
        .ok_or_else(not_found)?;
    if rbac_policy::usable(conn, caller, object(&row)).await? {
        Ok(row)
    } else {
        Err(not_found())
    }
}

/// What `qos_policy_id` becomes: a policy can be given by whoever may use it, and taken away too.
pub(super) async fn change(
    write: &mut Write<'_>,
    before: Option<String>,
    wanted: Option<String>,
) -> Result<Option<String>> {
    if before == wanted {
        return Ok(wanted);
    }
    let caller = write.caller;
    if let Some(old) = &before
        && usable(write.conn(), caller, old).await.is_err()
    {
        return Err(Error::Forbidden(format!("Removal of QoS policy {old}")));
    }
    if let Some(new) = &wanted {
        usable(write.conn(), caller, new).await?;
    }
    Ok(wanted)
}

/// The policy that a project's new network gets if its creator names none.
pub(super) async fn default_of(write: &mut Write<'_>, project: &str) -> Result<Option<String>> {
    let found = store::default_get(write.conn(), project).await?;
    Ok(found.map(|policy| policy.id))
}
