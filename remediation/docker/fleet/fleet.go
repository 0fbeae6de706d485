// Package fleet finds the containers of a compose service and asks whether they work: the
// engine, and the service itself by its probe's addresses. remediation/docker decides from
// it what is to be replaced, and sees by it that a copy works.
//
// Invariants:
//   - It changes nothing: no container, no image, no file.
//   - Each replica is asked by its own address where that can be told, so that one that
//     works does not speak for another.
//   - Without an answer nothing is said: a service that cannot be asked denies nothing.
//   - No body that a service answered is in an error, but its version and its flags.
package fleet
