//! The store of an endpoint that has none yet: it cannot exist, and is there so that `Endpoint::named` needs no type.

use crate::*;
use async_trait::async_trait;
use std::{error::Error, time::Duration};
use uuid::Uuid;

/// No store. There is no value of it.
#[derive(Debug, Clone)]
pub enum NoStore {}

#[async_trait]
impl Store for NoStore {
    type Tx = NoStore;
    type Unit = NoStore;

    fn recognise(&self, _: &(dyn Error + 'static)) -> Option<StoreError> {
        match *self {}
    }
    async fn migrate(&self) -> Result<(), StoreError> {
        match *self {}
    }
    async fn register(&self, _: &str, _: &[Chart]) -> Result<(), StoreError> {
        match *self {}
    }
    async fn begin(&self, _: &[i64]) -> Result<Self, StoreError> {
        match *self {}
    }
    async fn read(&self, _: &Keys) -> Result<Found, StoreError> {
        match *self {}
    }
    async fn suspect(&self, _: &InboxRow) -> Result<Option<i64>, StoreError> {
        match *self {}
    }
    async fn forget(&self, _: &[Uuid]) -> Result<(), StoreError> {
        match *self {}
    }
    async fn claim(&self, _: &Claim<'_>) -> Result<Claimed, StoreError> {
        match *self {}
    }
    async fn hold_leases(&self, _: &Leases<'_>) -> Result<Vec<Uuid>, StoreError> {
        match *self {}
    }
    async fn sweep(&self, _: &str, _: Duration) -> Result<u64, StoreError> {
        match *self {}
    }
}

#[async_trait]
impl Unit for NoStore {
    type Tx = NoStore;

    fn tx(&mut self) -> &mut NoStore {
        self
    }
    async fn savepoint(&mut self) -> Result<(), StoreError> {
        match *self {}
    }
    async fn rollback_to_savepoint(&mut self) -> Result<(), StoreError> {
        match *self {}
    }
    async fn read(&mut self, _: &Keys) -> Result<Found, StoreError> {
        match *self {}
    }
    async fn write(&mut self, _: &Write) -> Result<(), StoreError> {
        match *self {}
    }
    async fn commit(self) -> Result<(), StoreError> {
        match self {}
    }
    async fn rollback(self) -> Result<(), StoreError> {
        match self {}
    }
}
