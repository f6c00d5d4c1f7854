{{/* qbox.toml, for the driver that kubelet uses. */}}
{{- define "qbox.config" -}}
{{- $config := .Values.config | default (.Files.Get "qbox.toml") -}}
{{- if eq .Values.cgroupDriver "cgroupfs" -}}
{{- $config = $config | replace "kubepods.slice" "kubepods" -}}
{{- end -}}
{{- if and .Values.enrollment.enabled (not (regexMatch "(?m)^\\s*\\[\\s*kubernetes\\s*\\]" $config)) -}}
{{- $config = printf "%s\n%s" $config (include "qbox.kubernetes" .) -}}
{{- end -}}
{{- $config -}}
{{- end -}}

{{/* Which pods are captured. */}}
{{- define "qbox.kubernetes" -}}
# Pods are captured by their labels (docs/kubernetes.md).
[kubernetes]
enroll = {{ toJson .Values.enrollment.enroll }}
{{ with .Values.enrollment.namespaces -}}
namespaces = {{ toJson . }}
{{ end -}}
{{ with .Values.enrollment.namespaceSelector -}}
namespace_selector = {{ toJson . }}
{{ end -}}
{{ if ne .Values.enrollment.unlisted "wait" -}}
unlisted = {{ toJson .Values.enrollment.unlisted }}
{{ end -}}
{{- end -}}

{{/* Its name changes with its text, so that a change rolls the pods, and the old ones keep theirs. */}}
{{- define "qbox.configName" -}}
qbox-config-{{ include "qbox.config" . | sha256sum | trunc 10 }}
{{- end -}}
