// Package projectfile reads and edits the files of a compose project: its .env, and the
// override file that compose reads next to the project's own. remediation/docker writes a
// flag or a version there before it touches a container.
//
// Invariants:
//   - No file outside of the configured folders is read or written, whatever symbolic
//     links are put on the way meanwhile.
//   - A file has its old content or its new one, never a part of it; its mode and owner
//     stay. Two edits in one folder wait for each other, in whatever process they are.
//   - An edit changes one key and no other byte, and can be put back to the byte from the
//     Entry that was read before it.
//   - An error names no value of a file.
package projectfile
