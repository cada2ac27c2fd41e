//! Security groups: the default group of each project, and groups that anyone makes.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::security_group_rule::{self, SecurityGroupRule};
use super::view::{View, view};
use super::{App, quota};
use crate::store::default_security_group_rule::template_list;
use crate::store::rbac_policy::granted;
use crate::store::security_group::{
    self as store, SecurityGroupRow, SecurityGroupRuleRow, default_get, rule_list_groups,
};
use crate::store::security_groups_default_statefulness::default_stateful;
use crate::store::{self as rows, Conn, ListQuery};
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

/// Only the group that the server makes is called default.
fn refuse_default(name: &str) -> Result<()> {
    if name.eq_ignore_ascii_case("default") {
        return Err(Error::conflict(
            "SecurityGroupDefaultAlreadyExists",
            "Default security group already exists.",
        ));
    }
    Ok(())
}

impl Resource for SecurityGroup {
    type Row = SecurityGroupRow;
    type Item = Item;

    const NAME: &'static str = "security_group";
    const COLLECTION: &'static str = "security_groups";
    const NOT_FOUND: &'static str = "SecurityGroupNotFound";
    const TITLE: &'static str = "Security group";
    const RBAC: Option<&'static str> = Some("security_group");
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("stateful", Kind::Bool)
            .post(Default::Unset)
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

    fn view(item: &Item) -> View {
        let row = &item.row;
        let rules: Vec<_> = item
            .rules
            .iter()
            .map(|rule| {
                let mut view = SecurityGroupRule::view(&security_group_rule::Item {
                    row: rule.clone(),
                    belongs_to_default_sg: row.is_default,
                });
                view.put("tenant_id", &rule.project_id);
                view.remove("tags");
                view.raw()
            })
            .collect();
        view! { row;
            "name" => row.name,
            "stateful" => row.stateful,
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
        let name = given.text("name");
        refuse_default(&name)?;
        default_ensure(write, &project_id).await?;
        let stateful = match given.truth("stateful") {
            Some(stateful) => stateful,
            None => default_stateful(write.conn(), &project_id).await?,
        };
        let row = SecurityGroupRow {
            id: Uuid::new_v4().to_string(),
            project_id,
            name,
            description: given.text("description"),
            stateful,
            ..SecurityGroupRow::default()
        };
        let item = create(write, row).await?;
        let rules = i64::try_from(item.rules.len()).unwrap_or(i64::MAX);
        quota::check::<SecurityGroupRule>(write, &item.row.project_id, rules).await?;
        Ok(item)
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
            if !row.is_default {
                refuse_default(&name)?;
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

/// Writes a group with the rules that all new ones begin with.
async fn create(write: &mut Write<'_>, mut row: SecurityGroupRow) -> Result<Item> {
    rows::insert(&mut write.tx, &mut row).await?;
    let mut rules = Vec::new();
    for template in template_list(write.conn(), row.is_default).await? {
        let mut rule = SecurityGroupRuleRow {
            id: Uuid::new_v4().to_string(),
            ..template.rule(&row.id, &row.project_id)
        };
        rule.match_key = security_group_rule::match_key(&rule);
        rows::insert(&mut write.tx, &mut rule).await?;
        rules.push(rule);
    }
    Ok(Item { row, rules })
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
        stateful: default_stateful(write.conn(), project).await?,
        is_default: true,
        ..SecurityGroupRow::default()
    };
    Ok(create(write, row).await?.row.id)
}

/// Some groups, if what a project has may be in them, or speak of them, when this caller asks.
///
/// # Errors
/// [`Error::NotFound`] for one that is not there or not visible.
pub(super) async fn usable(
    write: &mut Write<'_>,
    ids: &[String],
    project: &str,
) -> Result<Vec<SecurityGroupRow>> {
    let caller = write.caller;
    let wanted: Vec<&str> = ids.iter().map(String::as_str).collect();
    let groups = store::security_group_list(write.conn(), &wanted).await?;
    let own = |group: &SecurityGroupRow| {
        [project, &caller.project_id].contains(&group.project_id.as_str()) || caller.is_admin()
    };
    for id in ids {
        let group = groups.iter().find(|group| group.id == *id);
        let visible = match group {
            Some(group) if own(group) => true,
            Some(_) => {
                let conn = write.conn();
                !granted(conn, "security_group", project, &[id])
                    .await?
                    .is_empty()
                    || !granted(conn, "security_group", &caller.project_id, &[id])
                        .await?
                        .is_empty()
            }
            None => false,
        };
        if !visible {
            return Err(Error::not_found(
                "SecurityGroupNotFound",
                format!("Security group {id} does not exist."),
            ));
        }
    }
    Ok(groups)
}

/// Fails unless a port of a project may be in these groups: each visible, and all of them with state or all without.
pub(super) async fn usable_together(
    write: &mut Write<'_>,
    ids: &[String],
    project: &str,
) -> Result<()> {
    let groups = usable(write, ids, project).await?;
    if groups.iter().any(|group| group.stateful) && groups.iter().any(|group| !group.stateful) {
        return Err(Error::conflict(
            "SecurityGroupConflict",
            "Error cannot apply both stateful and stateless security groups on the same port while \
             attempting the operation.",
        ));
    }
    Ok(())
}
