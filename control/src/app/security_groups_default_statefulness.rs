//! Whether new security groups keep state, where their creators do not say: for one project, or for all that have no
//! setting of their own.

use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_ID, Take, text_of};
use super::error::{Error, Result};
use super::resource::{Resource, Write};
use super::view::{View, view};
use crate::store::security_groups_default_statefulness::DefaultStatefulnessRow;
use crate::store::{self as rows, Conn};
use serde_json::Value;
use uuid::Uuid;

/// The resource.
pub struct SecurityGroupsDefaultStatefulness;

fn project(value: &Value) -> Result<Value, String> {
    text_of(value, 255).map(Value::from)
}

impl Resource for SecurityGroupsDefaultStatefulness {
    type Row = DefaultStatefulnessRow;
    type Item = DefaultStatefulnessRow;

    const NAME: &'static str = "security_groups_default_statefulness";
    const COLLECTION: &'static str = "security_groups_default_statefulness";
    const NOT_FOUND: &'static str = "SecurityGroupDefaultStatefulnessNotFound";
    const TITLE: &'static str = "Security group default statefulness";
    const STANDARD: &'static [Attribute] = STANDARD_ID;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("project_id", Kind::Custom(project))
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("stateful", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
    ];

    fn row(item: &DefaultStatefulnessRow) -> &DefaultStatefulnessRow {
        item
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<DefaultStatefulnessRow>,
    ) -> Result<Vec<DefaultStatefulnessRow>> {
        Ok(rows)
    }

    fn view(row: &DefaultStatefulnessRow) -> View {
        let project = Some(&row.project_id).filter(|project| !project.is_empty());
        view! { none;
            "id" => row.id,
            "project_id" => project,
            "stateful" => row.stateful,
        }
    }

    async fn create(
        write: &mut Write<'_>,
        mut given: Attributes,
    ) -> Result<DefaultStatefulnessRow> {
        let mut row = DefaultStatefulnessRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            stateful: given.truth("stateful").unwrap_or(true),
            ..DefaultStatefulnessRow::default()
        };
        match rows::insert(&mut write.tx, &mut row).await {
            Err(rows::StoreError::Conflict(_)) => Err(Error::conflict(
                "SecurityGroupDefaultStatefulnessAlreadyExists",
                format!(
                    "A security group default statefulness setting already exists for project '{}'.",
                    row.project_id
                ),
            )),
            done => {
                done?;
                Ok(row)
            }
        }
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: DefaultStatefulnessRow,
        mut given: Attributes,
    ) -> Result<DefaultStatefulnessRow> {
        row.stateful = given.truth("stateful").unwrap_or(row.stateful);
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: DefaultStatefulnessRow) -> Result<()> {
        rows::delete::<DefaultStatefulnessRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}
