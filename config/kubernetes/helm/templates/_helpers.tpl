{{/* qbox.toml, for the driver that kubelet uses. */}}
{{- define "qbox.config" -}}
{{- $config := .Values.config | default (.Files.Get "qbox.toml") -}}
{{- if eq .Values.cgroupDriver "cgroupfs" -}}
{{- $config = $config | replace "kubepods.slice" "kubepods" -}}
{{- end -}}
{{- $config -}}
{{- end -}}

{{/* Its name changes with its text, so that a change rolls the pods, and the old ones keep theirs. */}}
{{- define "qbox.configName" -}}
qbox-config-{{ include "qbox.config" . | sha256sum | trunc 10 }}
{{- end -}}
