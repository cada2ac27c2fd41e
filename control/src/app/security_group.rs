//! Security groups: the default group of each project, and groups that anyone makes.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::security_group_rule::{self, SecurityGroupRule};
use super::view::view;
use super::{App, attribute};
use crate::store::security_group::{
    self as store, SecurityGroupRow, SecurityGroupRuleRow, default_get, rule_list_groups,
};
use crate::store::{self as rows, Conn, ListQuery};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// The resource.
pub struct SecurityGroup;

/// Bytes of a project's id.
const PROJECT_ID_BYTES_MAX: usize = 255;

/// A group with its rules.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: SecurityGroupRow,
    /// Its rules.
    pub rules: Vec<SecurityGroupRuleRow>,
}

fn name(value: &Value) -> Result<Value, String> {
    let text = attribute::text_of(value, 255)?;
    if text.eq_ignore_ascii_case("default") {
        return Err("Default security group name not allowed".to_owned());
    }
    Ok(text.into())
}

impl Resource for SecurityGroup {
    type Row = SecurityGroupRow;
    type Item = Item;

    const NAME: &'static str = "security_group";
    const COLLECTION: &'static str = "security_groups";
    const NOT_FOUND: &'static str = "SecurityGroupNotFound";
    const TITLE: &'static str = "Security group";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Custom(name))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("stateful", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .filter(),
        Attribute::new("shared", Kind::Bool).filter(),
        Attribute::new("security_group_rules", Kind::UuidList),
    ];

    fn row(item: &Item) -> &SecurityGroupRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, groups: Vec<SecurityGroupRow>) -> Result<Vec<Item>> {
        let ids: Vec<&str> = groups.iter().map(|row| row.id.as_str()).collect();
        let mut rules: HashMap<String, Vec<SecurityGroupRuleRow>> = HashMap::new();
        for rule in rule_list_groups(conn, &ids).await? {
            rules
                .entry(rule.security_group_id.clone())
                .or_default()
                .push(rule);
        }
        Ok(groups
            .into_iter()
            .map(|row| Item {
                rules: rules.remove(&row.id).unwrap_or_default(),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> Attributes {
        let row = &item.row;
        let rules: Vec<Value> = item
            .rules
            .iter()
            .map(|rule| {
                let mut view = SecurityGroupRule::view(&security_group_rule::Item {
                    row: rule.clone(),
                    belongs_to_default_sg: row.is_default,
                });
                view.insert("tenant_id".to_owned(), rule.project_id.clone().into());
                Value::Object(view)
            })
            .collect();
        view! { row;
            "name" => row.name,
            "stateful" => row.stateful,
            "shared" => false,
            "security_group_rules" => rules,
        }
    }

    /// As in Neutron, looking for a project's groups makes its default one.
    async fn before_list(app: &App, caller: &Caller, asked: &ListQuery) -> Result<()> {
        let filter = asked.filters.iter().find(|f| f.attribute == "project_id");
        let project = match filter.and_then(|filter| filter.values.first()) {
            Some(rows::Value::Text(project)) => project,
            _ => &caller.project_id,
        };
        let mut target = Attributes::new();
        target.insert("project_id".to_owned(), project.as_str().into());
        let rule = "create_default_security_group";
        if project.is_empty()
            || project.len() > PROJECT_ID_BYTES_MAX
            || !app.policy.allows(rule, caller, &target)
        {
            return Ok(());
        }
        let mut read = app.store.read().await?;
        let there = default_get(read.conn(), project).await?.is_some();
        drop(read);
        if !there {
            let mut write = Write {
                tx: app.store.write().await?,
                caller,
                app,
            };
            default_ensure(&mut write, project).await?;
            write.tx.commit().await?;
        }
        Ok(())
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let project_id = given.text("project_id");
        default_ensure(write, &project_id).await?;
        let row = SecurityGroupRow {
            id: Uuid::new_v4().to_string(),
            project_id,
            name: given.text("name"),
            description: given.text("description"),
            stateful: given.truth("stateful").unwrap_or(true),
            ..SecurityGroupRow::default()
        };
        create(write, row).await
    }

    async fn update(write: &mut Write<'_>, item: Item, mut given: Attributes) -> Result<Item> {
        let Item { mut row, rules } = item;
        if let Some(name) = given.text_opt("name") {
            if row.is_default && name != row.name {
                return Err(Error::conflict(
                    "SecurityGroupCannotUpdateDefault",
                    "Updating default security group not allowed.",
                ));
            }
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        let stateful = given.truth("stateful").unwrap_or(row.stateful);
        if stateful != row.stateful && store::security_group_in_use(write.conn(), &row.id).await? {
            return Err(in_use(&row.id));
        }
        row.stateful = stateful;
        rows::update(&mut write.tx, &mut row).await?;
        Ok(Item { row, rules })
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        let row = &item.row;
        if row.is_default && !write.caller.is_admin() {
            return Err(Error::conflict(
                "SecurityGroupCannotRemoveDefault",
                "Insufficient rights for removing default security group.",
            ));
        }
        if store::security_group_in_use(write.conn(), &row.id).await? {
            return Err(in_use(&row.id));
        }
        rows::delete::<SecurityGroupRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}

fn in_use(id: &str) -> Error {
    Error::conflict("SecurityGroupInUse", format!("Security Group {id} in use."))
}

/// Writes a group with the rules that Neutron gives every group: all egress. The default group also lets its members
/// reach each other.
async fn create(write: &mut Write<'_>, mut row: SecurityGroupRow) -> Result<Item> {
    rows::insert(&mut write.tx, &mut row).await?;
    let mut rules = Vec::new();
    for ethertype in ["IPv4", "IPv6"] {
        rules.push(rule(&row, "egress", ethertype, None));
        if row.is_default {
            rules.push(rule(&row, "ingress", ethertype, Some(row.id.clone())));
        }
    }
    for rule in &mut rules {
        rows::insert(&mut write.tx, rule).await?;
    }
    Ok(Item { row, rules })
}

fn rule(
    group: &SecurityGroupRow,
    direction: &str,
    ethertype: &str,
    remote_group_id: Option<String>,
) -> SecurityGroupRuleRow {
    let mut rule = SecurityGroupRuleRow {
        id: Uuid::new_v4().to_string(),
        project_id: group.project_id.clone(),
        security_group_id: group.id.clone(),
        direction: direction.to_owned(),
        ethertype: ethertype.to_owned(),
        remote_group_id,
        ..SecurityGroupRuleRow::default()
    };
    rule.match_key = security_group_rule::match_key(&rule);
    rule
}

/// The id of a project's default group, which is made if it is missing.
pub(super) async fn default_ensure(write: &mut Write<'_>, project: &str) -> Result<String> {
    if let Some(row) = default_get(write.conn(), project).await? {
        return Ok(row.id);
    }
    let row = SecurityGroupRow {
        id: Uuid::new_v4().to_string(),
        project_id: project.to_owned(),
        name: "default".to_owned(),
        description: "Default security group".to_owned(),
        stateful: true,
        is_default: true,
        ..SecurityGroupRow::default()
    };
    Ok(create(write, row).await?.row.id)
}

/// Fails unless a port of a project, made by this caller, may be in a group.
pub(super) async fn usable(write: &mut Write<'_>, id: &str, project: &str) -> Result<()> {
    let group = rows::get::<SecurityGroupRow>(write.conn(), id).await?;
    let caller = write.caller;
    let visible = group.is_some_and(|group| {
        group.project_id == project || group.project_id == caller.project_id || caller.is_admin()
    });
    if visible {
        return Ok(());
    }
    Err(Error::not_found(
        "SecurityGroupNotFound",
        format!("Security group {id} does not exist."),
    ))
}
