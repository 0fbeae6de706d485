package compose

// Compose's labels.
const (
	LabelPrefix      = "com.docker.compose."
	LabelProject     = "com.docker.compose.project"
	LabelService     = "com.docker.compose.service"
	LabelWorkingDir  = "com.docker.compose.project.working_dir"
	LabelConfigFiles = "com.docker.compose.project.config_files"
	labelEnvFile     = "com.docker.compose.project.environment_file"
	LabelConfigHash  = "com.docker.compose.config-hash"
	LabelOneOff      = "com.docker.compose.oneoff"
	LabelVersion     = "com.docker.compose.version"
	LabelImage       = "com.docker.compose.image" // the image's id, as of its second generation on
)
