{{/* Words that several templates need. */}}

{{/* Release and chart, but not twice; short enough that "-scheduler" and the hash of
     a revision fit in the 63 octets of a label. */}}
{{- define "recorder.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 42 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What a selector looks for. Takes (dict "root" $ "component" "…"). */}}
{{- define "recorder.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* metadata.labels, and annotations where there are any. Own labels win over those of the values,
     or selectors would find nothing. */}}
{{- define "recorder.labels" -}}
{{- $own := include "recorder.selector" . | fromYaml -}}
{{- $chart := dict "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- toYaml (merge $own $chart (deepCopy .root.Values.tap.labels)) -}}
{{- end -}}

{{- define "recorder.annotations" -}}
{{- with merge (deepCopy (.own | default dict)) (deepCopy .root.Values.tap.annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* image and imagePullPolicy. Takes (dict "root" $ "image" "capture" "key" "worker"). */}}
{{- define "recorder.image" -}}
{{- $docker := .root.Values.tap.docker -}}
{{- $version := .root.Chart.AppVersion -}}
{{- if not $docker.tagLocked -}}
{{- $version = regexReplaceAll "^([^.]+\\.[^.]+).*$" $version "${1}" -}}
{{- end -}}
{{- $tag := index $docker.overrideTag .key | default $docker.tag | default $version -}}
{{- $registry := ternary "" (printf "%s/" (trimSuffix "/" $docker.registry)) (empty $docker.registry) -}}
{{- $image := index $docker.overrideImage .key | default (printf "%s%s-%s:%s" $registry .root.Chart.Name .image $tag) -}}
image: {{ $image | quote }}
imagePullPolicy: {{ $docker.imagePullPolicy | default (ternary "IfNotPresent" "Always" (empty $docker.registry)) }}
{{- end -}}

{{- define "recorder.pullSecrets" -}}
{{- with .Values.tap.docker.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A size as octets: 500Mi, 1.5Gi, 10G, 1048576. Takes (dict "size" … "key" "tap.…" "least" "1Mi"), and
     the schema has seen that it looks like a size. A bare number in a file of values is a float,
     which toString would write with an exponent. */}}
{{- define "recorder.octets" -}}
{{- $size := kindIs "float64" .size | ternary (int64 .size | toString) (toString .size) -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]*$" $size -}}
{{- $octets := mulf (float64 (trimSuffix $unit $size)) (float64 (index $units $unit)) -}}
{{- if lt $octets (float64 .least) -}}
{{- fail (printf "%s: %s is too little; write a size of at least %dMi." .key $size (div .least 1048576)) -}}
{{- end -}}
{{- if gt $octets 1e15 -}}
{{- fail (printf "%s: %s is more than any volume has; write a size as 500Mi or 5Gi." .key $size) -}}
{{- end -}}
{{- int64 $octets -}}
{{- end -}}

{{- define "recorder.storageLimit" -}}
{{- include "recorder.octets" (dict "size" .Values.tap.storageLimit "key" "tap.storageLimit" "least" 1048576) -}}
{{- end -}}

{{/* Size of the volume for a storageLimit: more than what recordings may take. A tenth and 256Mi are
     for the jobs' database and for files that were deleted while a question still reads them. */}}
{{- define "recorder.volumeSize" -}}
{{- $limit := include "recorder.storageLimit" . | int64 -}}
{{- printf "%dMi" (add (div (add $limit 1048575) 1048576) (div $limit 10485760) 256) -}}
{{- end -}}

{{/* resources. Takes (dict "given" … "ephemeral" "…"): limits that are 0 are none. */}}
{{- define "recorder.resources" -}}
{{- $limits := dict -}}
{{- range $name, $quantity := .given.limits -}}
{{- if not (has (toString $quantity) (list "0" "")) -}}{{- $_ := set $limits $name $quantity -}}{{- end -}}
{{- end -}}
{{- $requests := dict "ephemeral-storage" .ephemeral -}}
{{- range $name, $quantity := .given.requests -}}
{{- if not (has (toString $quantity) (list "0" "")) -}}{{- $_ := set $requests $name $quantity -}}{{- end -}}
{{- end -}}
{{- with $limits }}
limits:
  {{- toYaml . | nindent 2 }}
{{- end }}
requests:
  {{- toYaml $requests | nindent 2 }}
{{- end -}}

{{/* Where a pod may run. Takes (dict "terms" … "tolerations" … "priorityClass" …). */}}
{{- define "recorder.placement" -}}
{{- with .terms }}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        {{- toYaml . | nindent 8 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClass }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Environment that all services have. */}}
{{- define "recorder.environment" -}}
- name: RECORDER_LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
- name: RECORDER_LOG_FORMAT
  value: json
- name: RECORDER_GRACE_SECONDS
  value: {{ .Values.tap.drainSeconds | quote }}
{{- end -}}

{{/* The keys of a bucket, for those who read and write there. */}}
{{- define "recorder.remoteKeys" -}}
{{- with .Values.tap.remote.secret }}
envFrom:
  - secretRef: {name: {{ . | quote }}}
{{- end }}
{{- end -}}

{{/* Operators' words. A dollar would begin one of the kubelet's own variables. */}}
{{- define "recorder.macros" -}}
- name: RECORDER_MACROS
  value: {{ .Values.tap.customMacros | toJson | replace "$" "$$" | quote }}
{{- end -}}

{{/* Probes of a server. Readiness asks the service; it is a call as any other, so a service that has
     as many as it takes is not ready, and must not be restarted for that: liveness only connects. */}}
{{- define "recorder.probes" -}}
{{- $probe := .root.Values.tap.probes.hub -}}
startupProbe:
  grpc: {port: {{ .port }}}
  periodSeconds: 2
  # Two minutes: after a crash, what the journals have is read first.
  failureThreshold: 60
readinessProbe:
  grpc: {port: {{ .port }}}
  initialDelaySeconds: {{ $probe.initialDelaySeconds }}
  periodSeconds: {{ $probe.periodSeconds }}
  successThreshold: {{ $probe.successThreshold }}
  failureThreshold: {{ $probe.failureThreshold }}
  timeoutSeconds: 5
livenessProbe:
  tcpSocket: {port: {{ .port }}}
  initialDelaySeconds: {{ $probe.initialDelaySeconds }}
  periodSeconds: {{ $probe.periodSeconds }}
  failureThreshold: {{ $probe.failureThreshold }}
  timeoutSeconds: 5
{{- end -}}

{{/* Probes of the gateway. It is ready when the services behind it are; without them it serves too,
     and says so. */}}
{{- define "recorder.httpProbes" -}}
{{- $probe := .root.Values.tap.probes.hub -}}
startupProbe:
  tcpSocket: {port: {{ .port }}}
  periodSeconds: 2
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /health, port: {{ .port }}}
  initialDelaySeconds: {{ $probe.initialDelaySeconds }}
  periodSeconds: {{ $probe.periodSeconds }}
  successThreshold: {{ $probe.successThreshold }}
  failureThreshold: {{ $probe.failureThreshold }}
  timeoutSeconds: 5
livenessProbe:
  tcpSocket: {port: {{ .port }}}
  initialDelaySeconds: {{ $probe.initialDelaySeconds }}
  periodSeconds: {{ $probe.periodSeconds }}
  failureThreshold: {{ $probe.failureThreshold }}
  timeoutSeconds: 5
{{- end -}}

{{/* Names by which the gateway is called: those of its Service, and others' own. */}}
{{- define "recorder.gatewayHosts" -}}
{{- $name := printf "%s-gateway" (include "recorder.fullname" .) -}}
{{- $below := printf "%s.%s" $name .Release.Namespace -}}
{{- $own := list $name $below (printf "%s.svc" $below) (printf "%s.svc.cluster.local" $below) -}}
{{- join "," (concat $own .Values.tap.gateway.hosts) -}}
{{- end -}}

{{/* Whether not all pods are captured. */}}
{{- define "recorder.hasTargets" -}}
{{- if or (not (has .Values.tap.regex (list "" ".*"))) .Values.tap.namespaces .Values.tap.excludedNamespaces }}true{{ end -}}
{{- end -}}

{{/* Keys under tap and tap.misc that were given and do nothing, as "tap.x, tap.y". */}}
{{- define "recorder.ignored" -}}
{{- $known := list "docker" "storageLimit" "persistentStorage" "storageClass" "remote" "resources" "probes" "drainSeconds" "capture" "identity" "regex" "namespaces" "excludedNamespaces" "bpfOverride" "misc" "query" "gateway" "customMacros" "labels" "annotations" "nodeSelectorTerms" "tolerations" "priorityClass" -}}
{{- $ignored := list -}}
{{- range $key, $_ := .Values.tap -}}
{{- if not (has $key $known) -}}{{- $ignored = append $ignored (printf "tap.%s" $key) -}}{{- end -}}
{{- end -}}
{{- range $key, $_ := omit .Values.tap.misc "trafficSampleRate" -}}
{{- $ignored = append $ignored (printf "tap.misc.%s" $key) -}}
{{- end -}}
{{- join ", " (sortAlpha $ignored) -}}
{{- end -}}
