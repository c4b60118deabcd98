//! Gives what a record holds to the requests that it answers: one answer each, or one response of a stream.

use std::sync::Arc;

use super::calls::{Flight, Member};
use super::frame::Record;
use super::scatter::{Output, part, whole};
use crate::error::InferError;
use crate::model::Served;
use crate::request::{InferResponse, OutputTensor, Parameters, Timing};
use crate::response_statistics::ResponseKind;
use crate::statistics::Times;
use crate::statistics::reasons::FailureReason;

/// What all requests of one record share.
#[derive(Debug)]
pub struct Delivery<'a> {
    served: &'a Served,
    parameters: Option<Arc<Parameters>>,
    times: Times,
    last: bool,
}

impl<'a> Delivery<'a> {
    /// What a record says to each of its requests.
    pub fn new(served: &'a Served, record: &Record) -> Self {
        Self { served, parameters: None, times: times(record), last: record.last }
    }

    /// The response parameters.
    #[must_use]
    pub fn with(mut self, parameters: Arc<Parameters>) -> Self {
        self.parameters = Some(parameters);
        self
    }

    /// Gives each request its part of the outputs.
    pub fn deliver(&self, flight: &mut Flight, targets: &[usize], outputs: &mut [Output]) {
        let served = self.served;
        if !served.spec.decoupled {
            flight.count_run(served, self.times);
        }
        let shared = targets.len() > 1;
        let total = targets.iter().map(|target| flight.members[*target].rows).sum();
        for target in targets {
            let rows = flight.rows;
            let member = &mut flight.members[*target];
            let wanted = member.job.as_ref().map_or(&[][..], |job| &job.request.outputs);
            let parts = if shared {
                part(outputs, served, wanted, member.rows, total)
            } else {
                Ok(whole(outputs, served, wanted))
            };
            if served.spec.decoupled {
                self.respond(member, rows, parts);
            } else {
                match parts {
                    Ok(tensors) => self.succeed(member, rows, tensors),
                    Err(error) => fail(served, member, &error),
                }
            }
        }
    }

    /// The record carries no response: the request is over, or only lets go of the instance.
    pub fn end(&self, flight: &mut Flight, targets: &[usize]) {
        for target in targets.iter().filter(|_| self.last) {
            let member = &mut flight.members[*target];
            self.count(member, ResponseKind::Empty);
            let Some(job) = member.job.take() else { continue };
            if job.is_cancelled() {
                job.count_gone(&self.served.statistics);
            } else if !self.served.spec.decoupled || member.failed {
                self.served.statistics.failed(job.arrived, FailureReason::Backend);
            } else {
                self.served.statistics.succeeded(u64::from(job.rows.max(1)), job.arrived, member.times(self.times));
            }
            job.finish(Ok(None));
        }
    }

    /// The record carries an error.
    pub fn fail(&self, flight: &mut Flight, targets: &[usize], error: &InferError) {
        for target in targets {
            let rows = flight.rows;
            let member = &mut flight.members[*target];
            if self.served.spec.decoupled {
                self.respond(member, rows, Err(error.clone()));
            } else {
                fail(self.served, member, error);
            }
        }
    }

    fn succeed(&self, member: &mut Member, batch: u32, outputs: Vec<OutputTensor>) {
        let Some(mut job) = member.job.take() else { return };
        let served = self.served;
        if job.is_cancelled() {
            job.count_gone(&served.statistics);
        } else {
            served.statistics.succeeded(u64::from(job.rows.max(1)), job.arrived, self.times);
        }
        let id = std::mem::take(&mut job.request.id);
        let timing = Timing { queued: job.arrived, times: self.times, batch };
        let response = self.response((Arc::clone(&job.request.model), id), outputs, timing);
        job.answer(Ok(response));
    }

    /// One response of a stream.
    fn respond(&self, member: &mut Member, batch: u32, outputs: Result<Vec<OutputTensor>, InferError>) {
        let served = self.served;
        let times = member.times(self.times);
        let Some(job) = member.job.take() else { return };
        if job.is_cancelled() {
            // Told to the worker by a sweep; kept until its last record, so that it is counted once.
            self.count(member, ResponseKind::Cancelled);
            if self.last {
                job.count_gone(&served.statistics);
            } else {
                member.job = Some(job);
            }
            return;
        }
        let kind = if outputs.is_ok() { ResponseKind::Good } else { ResponseKind::Failed };
        self.count(member, kind);
        if member.responses <= 1 {
            served.statistics.first_response(job.arrived);
        }
        member.failed |= kind == ResponseKind::Failed;
        let (model, id) = (Arc::clone(&job.request.model), job.request.id.clone());
        let timing = Timing { queued: job.arrived, times, batch };
        let outcome = outputs.map(|outputs| self.response((model, id), outputs, timing));
        if self.last {
            if member.failed {
                served.statistics.failed(job.arrived, FailureReason::Backend);
            } else {
                served.statistics.succeeded(u64::from(job.rows.max(1)), job.arrived, times);
            }
            job.answer(outcome);
        } else if let Err(behind) = job.respond(outcome) {
            served.statistics.failed(job.arrived, &behind);
            job.answer(Err(behind));
        } else {
            member.job = Some(job);
        }
    }

    fn count(&self, member: &mut Member, kind: ResponseKind) {
        if self.served.spec.decoupled {
            // The end comes behind the responses; they have been counted.
            let index = if kind == ResponseKind::Empty { member.responses } else { member.responses.saturating_sub(1) };
            self.served.statistics.responded(index, kind, self.times);
        }
    }

    /// To the request of this model and id.
    fn response(&self, to: (Arc<str>, String), outputs: Vec<OutputTensor>, timing: Timing) -> InferResponse {
        let parameters = self.parameters.clone().unwrap_or_default();
        InferResponse { model: to.0, version: self.served.spec.version, id: to.1, parameters, outputs, timing }
    }
}

/// The times of a record.
pub fn times(record: &Record) -> Times {
    let [start, input, infer, output] = record.times;
    Times { start, input, infer, output }
}

/// Ends a request that gets no response any more.
pub fn fail(served: &Served, member: &mut Member, error: &InferError) {
    let Some(job) = member.job.take() else { return };
    if matches!(error, InferError::Cancelled) || job.is_cancelled() {
        job.count_gone(&served.statistics);
    } else {
        served.statistics.failed(job.arrived, error);
    }
    job.answer(Err(error.clone()));
}
