//! The order of the stages, as data. docs/pipeline.md says what each does; `stage/` how.
//!
//! Every packet passes [`PACKET`]; one that has no fresh session passes [`WALK`] in between, once; what is forwarded
//! passes [`APPLY`].

use weft_model::Stage;

/// What every packet passes.
pub const PACKET: &[Stage] = &[
    Stage::Decode,
    Stage::PortSecurity,
    Stage::ArpNd,
    Stage::Dhcp,
    Stage::Session,
];

/// What the first packet of a session passes, and one of a session whose policy or topology changed.
pub const WALK: &[Stage] = &[
    Stage::SecurityGroupEgress,
    Stage::Bridge,
    Stage::Router,
    Stage::Nat,
    Stage::SecurityGroupIngress,
];

/// What every packet passes that is forwarded.
pub const APPLY: &[Stage] = &[Stage::Mtu, Stage::Qos, Stage::Tunnel, Stage::Deliver];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_stands_once() {
        let all: Vec<Stage> = [PACKET, WALK, APPLY].concat();
        let mut once = all.clone();
        once.sort();
        once.dedup();
        assert_eq!((all.len(), once.len()), (14, 14));
    }
}
