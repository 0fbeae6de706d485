package engine

// VerifyAudit is what the engine does at start and daily.
var VerifyAudit = (*Engine).verifyAudit
