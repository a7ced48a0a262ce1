{{- define "labels" -}}
app.kubernetes.io/name: relay-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- define "policy" -}}
{{- .Values.policy.existing | default (printf "%s-policy" .Release.Name) -}}
{{- end -}}
