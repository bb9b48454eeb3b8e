//! Fields that have a meaning and whose work is still to come: refused, never ignored. Whoever does the work deletes the line.

use super::{TaskStyle, driver_path};
use crate::{
    problem::{Problem, quoted},
    spec::{Driver, ImageSource, Update, WorkloadKind, WorkloadSpec, duration_text},
};

/// What this version does not do yet and the spec asks for.
pub(super) fn unsupported(spec: &WorkloadSpec, style: TaskStyle) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |asked: bool, path: &str, found: String| {
        if asked {
            problems.push(Problem::not_supported(path, found));
        }
    };
    refuse(spec.health.is_some(), "health", "a health check".to_owned());
    refuse(spec.schedule.is_some(), "schedule", quoted(spec.schedule.as_deref().unwrap_or_default()));
    let Update { max_unavailable: _, canary, healthy_for, deadline, auto_revert } = spec.update;
    refuse(canary != 0, "update.canary", canary.to_string());
    refuse(healthy_for != 0, "update.healthy_for", duration_text(healthy_for));
    refuse(deadline != 0, "update.deadline", duration_text(deadline));
    refuse(auto_revert, "update.auto_revert", "true".to_owned());
    for (i, task) in spec.tasks.iter().enumerate() {
        refuse(i > 0, &format!("tasks[{i}]"), "more than one task".to_owned());
        if let Driver::Vm(vm) = &task.driver
            && let Some(ImageSource::Url(url)) = vm.image.as_ref().map(|image| &image.source)
        {
            refuse(true, &format!("{}.image.url", driver_path(style, i, task)), quoted(url));
        }
    }
    if matches!(spec.kind, WorkloadKind::Daemon | WorkloadKind::Cron) {
        let expected = "service or batch: no other kind is supported by this version yet";
        problems.push(Problem::new("kind", expected, spec.kind.as_str()));
    }
    problems
}
