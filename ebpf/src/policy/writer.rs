//! Writes to `policy_rules`, the table of tables.
//!
//! The kernel lets every writer of such a map wait, after the write, until no packet uses what it replaced: 16 ms and
//! more, in which the new table is long in force. So a thread writes and waits, and the caller goes on as soon as the
//! new tables are seen in their slots. Guarantees: when [`TableWriter::swap`] returns, every packet that starts later
//! meets the new tables; writes happen in the order of the calls.

use super::PolicyError;
use super::table::PolicyMaps;
use crate::sys::{Map, SysError};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread::JoinHandle;

/// At most one write is under way.
#[derive(Debug, Default)]
pub(super) struct TableWriter {
    thread: Option<JoinHandle<Result<(), SysError>>>,
}

impl TableWriter {
    /// Puts tables into slots, all with one call.
    pub(super) fn swap(
        &mut self,
        maps: &Arc<PolicyMaps>,
        tables: Vec<(u32, Map)>,
    ) -> Result<(), PolicyError> {
        let wanted: Vec<(u32, u32)> = tables
            .iter()
            .map(|(slot, table)| (*slot, table.info().id))
            .collect();
        let rules = maps.clone();
        self.write(move || {
            let keys: Vec<u8> = tables
                .iter()
                .flat_map(|(slot, _)| slot.to_ne_bytes())
                .collect();
            let fds = tables.iter().map(|(_, table)| table.as_fd().as_raw_fd());
            let values: Vec<u8> = fds.flat_map(i32::to_ne_bytes).collect();
            rules.rules.update_batch(&keys, &values)
        })?;
        for (slot, id) in wanted {
            while maps.rules.lookup(&slot.to_ne_bytes())? != Some(id.to_ne_bytes().to_vec()) {
                if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                    return self.finish();
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Empties slots, some time.
    pub(super) fn remove(
        &mut self,
        maps: &Arc<PolicyMaps>,
        slots: Vec<u32>,
    ) -> Result<(), PolicyError> {
        let rules = maps.clone();
        self.write(move || {
            slots
                .iter()
                .try_for_each(|slot| rules.rules.delete(&slot.to_ne_bytes()).map(drop))
        })
    }

    fn write(
        &mut self,
        write: impl FnOnce() -> Result<(), SysError> + Send + 'static,
    ) -> Result<(), PolicyError> {
        self.finish()?;
        let thread = std::thread::Builder::new()
            .name("policy-write".to_owned())
            .spawn(write);
        self.thread = Some(thread.map_err(PolicyError::Thread)?);
        Ok(())
    }

    /// Waits for the write under way.
    fn finish(&mut self) -> Result<(), PolicyError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => Ok(result?),
            // The thread has printed its panic; the next write mends what it left.
            Some(Err(_)) => Err(PolicyError::Thread(std::io::Error::other(
                "the writer panicked",
            ))),
            None => Ok(()),
        }
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        // Nobody is left to tell of an error.
        let _ = self.finish();
    }
}
