// Command notify sends a notification to whom a tag expression means, and watches what becomes of it.
//
//	go run ./notify 'vip + (beta & !churned)' 'The doors are open'
//
// Its stubs are made by `python scripts/generate.py go --output docs/examples/go`, from the root of the repository.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	commonv1 "tidings.example/gen/go/tidings/common/v1"
	schedulerv1 "tidings.example/gen/go/tidings/scheduler/v1"
)

func main() {
	log.SetFlags(0)
	scheduler := flag.String("scheduler", "127.0.0.1:9092", "host:port of the scheduler")
	key := flag.String("api-key", "", "where the scheduler asks for one")
	minutes := flag.Float64("minutes", 60, "when it expires")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: notify [flags] EXPRESSION TEXT")
	}
	// Plain text. For TLS: credentials.NewTLS(config) in place of insecure.NewCredentials(), and for mutual TLS certificates in config.
	connection, err := grpc.NewClient(*scheduler, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx := context.Background()
	if *key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+*key)
	}
	expires := time.Now().Add(time.Duration(*minutes * float64(time.Minute)))
	client := schedulerv1.NewNotificationServiceClient(connection)
	if err := notify(ctx, client, flag.Arg(0), flag.Arg(1), expires); err != nil {
		log.Fatal(reason(err))
	}
}

// notify estimates, uploads and watches.
func notify(ctx context.Context, client schedulerv1.NotificationServiceClient, expression, text string, expires time.Time) error {
	audience := &commonv1.Audience{Expression: expression}
	estimate, err := client.EstimateAudience(ctx, &schedulerv1.EstimateAudienceRequest{Audience: audience})
	if err != nil {
		return err
	}
	fmt.Printf("%d of %d clients are meant\n", estimate.Count, estimate.KnownClients)
	spec := &commonv1.NotificationSpec{
		Audience:   audience,
		Content:    &commonv1.Content{Body: &commonv1.Content_Text{Text: &commonv1.Text{Text: text}}},
		ExpireTime: timestamppb.New(expires),
	}
	notification, err := upload(ctx, client, spec)
	if err != nil {
		return err
	}
	fmt.Println("uploaded", notification.NotificationId)
	return watch(ctx, client, notification.NotificationId)
}

// upload uploads once, however often it takes: the same request_id with the same body is the same notification.
func upload(
	ctx context.Context, client schedulerv1.NotificationServiceClient, spec *commonv1.NotificationSpec,
) (*schedulerv1.Notification, error) {
	request := &schedulerv1.UploadNotificationRequest{RequestId: newRequestID(), Spec: spec}
	for {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		response, err := client.UploadNotification(limited, request)
		cancel()
		if err == nil {
			return response.Notification, nil
		}
		delay, again := retryAfter(err)
		if !again {
			return nil, err
		}
		log.Printf("not yet (%s), again in %s", reason(err), delay)
		time.Sleep(delay)
	}
}

// watch prints reports until the notification is over.
func watch(ctx context.Context, client schedulerv1.NotificationServiceClient, notificationID string) error {
	stream, err := client.WatchNotification(ctx, &schedulerv1.WatchNotificationRequest{NotificationId: notificationID})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		report := response.Report
		fmt.Printf("%s: %d of %d have it, %d pending, %d failed, %d expired, %d cancelled\n",
			strings.TrimPrefix(report.State.String(), "NOTIFICATION_STATE_"), report.Delivered, report.Expansion,
			report.Pending, report.Failed, report.Expired, report.Cancelled)
	}
}

// newRequestID is an id for a request that changes something. Keep it to make the same request again.
func newRequestID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

// retryAfter says when the same request may be made again; false when that won't help.
func retryAfter(err error) (time.Duration, bool) {
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.RetryDelay.AsDuration(), true
		}
	}
	switch status.Code(err).String() { // without details it is the network's
	case "Unavailable", "DeadlineExceeded":
		return time.Second, true
	}
	return 0, false
}

// reason is the error as Tidings names it, the field at fault, and what to do.
func reason(err error) string {
	converted := status.Convert(err)
	name := converted.Code().String()
	for _, detail := range converted.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "tidings" {
			name = info.Reason
		}
	}
	return name + ": " + converted.Message()
}
