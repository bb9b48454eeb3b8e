//! Cases and properties of placement. `estate` makes states by applying entries, so that what is derived stays right; `cases` runs the text
//! files, `allowances` gives boroughs quotas, guarantees and weights, `ports` shows refusals that no pass provokes, `gangs` when gangs are looked at again, `engine` compares an old engine with new ones, `property` compares the pass on random estates (`random`) with a naive judge that shares no code with it (`judge`), `volumes` what happens to volumes, `circles` that displacing has an end. What must hold of thousands is in `at_size`. `conditions` makes
//! conditions for the random estates and judges them.

mod allowances;
mod at_size;
mod cases;
mod changes;
mod circles;
mod conditions;
mod cores;
mod engine;
mod estate;
mod exclusive;
mod gangs;
mod judge;
mod own;
mod planning;
mod ports;
mod property;
mod random;
mod volumes;
