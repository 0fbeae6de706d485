// Package compose says what compose would make of a project: which files are its, what they
// give a service, and, by the operator's own compose program, which hash it would write on
// a container. remediation/docker asks it before and after it changes a file.
//
// Invariants:
//   - It reads the project's files and changes none; no engine is asked, but by the
//     operator's program.
//   - A Definition is what compose would create a container from, run from a shell that
//     sets no variable.
//   - The program may be missing, slow or wrong: it costs one more recreation, and
//     nothing else.
//   - No value of a variable is in an error or a log.
package compose
